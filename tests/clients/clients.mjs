// The real agent programs: which versions, and how each is started as a worker that nobody looks at.
// May assume: the packages of package.json are installed in CREWFS_CLIENTS. Must never: give a client more of the
// environment than stands here.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const programs = process.env.CREWFS_CLIENTS;

function put(path, text) {
    mkdirSync(join(path, '..'), { recursive: true });
    writeFileSync(path, text);
}

/**
 * `setUp(home, place)` writes what a client has to find in its home, and `start(place)` gives arguments and environment. A
 * place is `{ url, name, project, prompt }`.
 * `once`: it ends with its first turn, whatever its hook says.
 * `rewrites`: before it writes over a whole file, it sees to it that the model knows what is there. Others read the file
 * themselves just before, so for the mount their worker knows what it destroys.
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
            // Its option for that, --skip-trust, comes too late for the hooks of a project.
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
            // It looks for a list of models and for a package, and without a network it would look for minutes.
            env: { OPENCODE_DISABLE_MODELS_FETCH: '1', npm_config_fetch_retries: '0' },
        }),
    },
};

export const program = (client) => join(programs, 'node_modules/.bin', client);
