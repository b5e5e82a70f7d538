// The real agent programs: their versions, and how each is started as an unattended worker.
// May assume: the packages of package.json are installed in CREWFS_CLIENTS. Must never: give a client more of the environment than this
// file lists.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const programs = process.env.CREWFS_CLIENTS;

function put(path, text) {
    mkdirSync(join(path, '..'), { recursive: true });
    writeFileSync(path, text);
}

/**
 * `setUp(home, place)` writes the files that a client needs in its home. `start(place)` returns arguments and environment. A
 * place is `{ url, name, project, prompt }`.
 * `once`: the client ends with its first turn, whatever its hook answers.
 * `rewrites`: before it overwrites a whole file, the client makes sure that the model has read the file. Other clients read the
 * file themselves just before, so for the mount their worker has read what it overwrites.
 */
export const CLIENTS = {
    claude: {
        rewrites: true,
        setUp() {},
        start: ({ url, name, prompt }) => ({
            args: ['-p', prompt, '--permission-mode', 'acceptEdits', '--allowedTools', 'Bash,Read,Edit,Write'],
            env: { ANTHROPIC_BASE_URL: url, ANTHROPIC_API_KEY: name },
        }),
    },
    codex: {
        setUp(home, { url, project }) {
            const settings = [
                'model = "gpt-5.5"',
                'model_provider = "stand-in"',
                '[model_providers.stand-in]',
                'name = "stand-in"',
                `base_url = "${url}/v1"`,
                'wire_api = "responses"',
                'env_key = "STAND_IN_KEY"',
                `[projects."${project}"]`,
                'trust_level = "trusted"',
            ];
            put(join(home, '.codex/config.toml'), settings.join('\n'));
        },
        start: ({ name, prompt }) => ({
            args: [
                ...['exec', '--skip-git-repo-check', '--sandbox', 'workspace-write'],
                ...['--dangerously-bypass-hook-trust', prompt],
            ],
            env: { STAND_IN_KEY: name },
        }),
    },
    gemini: {
        setUp(home) {
            const settings = { security: { auth: { selectedType: 'gemini-api-key' } } };
            put(join(home, '.gemini/settings.json'), JSON.stringify(settings));
        },
        start: ({ url, name, prompt }) => ({
            args: ['--model', 'gemini-2.5-pro', '--yolo', '-p', prompt],
            // Gemini's option for this, --skip-trust, takes effect too late for the hooks of a project.
            env: { GOOGLE_GEMINI_BASE_URL: url, GEMINI_API_KEY: name, GEMINI_CLI_TRUST_WORKSPACE: 'true' },
        }),
    },
    opencode: {
        once: true,
        rewrites: true,
        setUp(home, { url, name }) {
            const provider = { anthropic: { options: { baseURL: `${url}/v1`, apiKey: name } } };
            const settings = { model: 'anthropic/claude-sonnet-4-5', provider, autoupdate: false, share: 'disabled' };
            put(join(home, '.config/opencode/opencode.json'), JSON.stringify(settings));
        },
        start: ({ prompt }) => ({
            args: ['run', prompt],
            // opencode asks for a list of models and for a package; without a network it would retry for minutes.
            env: { OPENCODE_DISABLE_MODELS_FETCH: '1', npm_config_fetch_retries: '0' },
        }),
    },
};

export const program = (client) => join(programs, 'node_modules/.bin', client);
