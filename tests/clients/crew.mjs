// Workers in a project of their own: the project really mounted, the stand-in for the model APIs, and real clients.
// May assume: the program crewfs in CREWFS. Must never: leave a mount or a process behind, even after a failure.
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CLIENTS, program } from './clients.mjs';
import { HEADING, SHARED } from './minds.mjs';
import { serve } from './server.mjs';

const quietly = { encoding: 'utf8', stdio: 'pipe', timeout: 60_000 };
const crewfs = (...args) => execFileSync(process.env.CREWFS, args, quietly);

/** Wait until a condition is true. Fail with its name after the limit. */
export async function until(what, limit, holds) {
    const end = Date.now() + limit;
    for (;;) {
        const found = holds();
        if (found) {
            return found;
        }
        if (Date.now() > end) {
            throw new Error(`not within ${limit / 1000} s: ${what}`);
        }
        await new Promise((go) => setTimeout(go, 50));
    }
}

const crews = new Set();

/** End everything that still runs; for a signal in the middle of a run. */
export const endAll = () => Promise.all([...crews].map((crew) => crew.end()));

export class Crew {
    workers = [];

    /** `clients`: the programs that will work here. `think`: their model. `options`: mount options. */
    static async gather({ clients, think, options }) {
        const crew = new Crew();
        crews.add(crew);
        crew.place = mkdtempSync(join(tmpdir(), 'crewfs-clients-'));
        crew.project = join(crew.place, 'project');
        mkdirSync(crew.project);
        try {
            writeFileSync(crew.path(SHARED), `${HEADING}\n`);
            crewfs('init', crew.project, '--client', [...new Set(clients)].join(','));
            crewfs('mount', crew.project, '-o', options);
            crew.mounted = true;
            const at = (path) => crew.path(path);
            crew.server = await serve({ think, at, log: join(crew.place, 'requests.jsonl') });
        } catch (error) {
            await crew.end();
            throw error;
        }
        return crew;
    }

    path(name) {
        return join(this.project, name);
    }

    publish(id, text) {
        writeFileSync(this.path(`tasks/${id}.md`), text);
    }

    /** Start a real client, with this worker name or without one. Its output goes to a file in its home. */
    start(client, name, prompt, { anonymous = false } = {}) {
        const home = join(this.place, name);
        const at = { url: `http://127.0.0.1:${this.server.port}`, name, project: this.project, prompt };
        mkdirSync(home);
        CLIENTS[client].setUp(home, at);
        const { args, env } = CLIENTS[client].start(at);
        const output = openSync(join(home, 'output'), 'w');
        const process = spawn(program(client), args, {
            cwd: this.project,
            env: {
                HOME: home,
                PATH: '/usr/local/bin:/usr/bin:/bin',
                LANG: 'C.UTF-8',
                ...(anonymous ? {} : { CREWFS_WORKER: name }),
                ...env,
            },
            stdio: ['ignore', output, output],
            detached: true,
        });
        const worker = { client, name, process, started: Date.now() };
        process.on('exit', (code, signal) => Object.assign(worker, { code, signal, ended: Date.now() }));
        process.on('error', (error) => Object.assign(worker, { code: String(error), ended: Date.now() }));
        this.workers.push(worker);
        return worker;
    }

    /** The events of the log, read without the mount, so that no read counts as a worker's. */
    events() {
        const lines = crewfs('log', this.project).trim().split('\n');
        return lines.filter(Boolean).map((line) => JSON.parse(line));
    }

    /** The number of events of a kind, of one worker or of all. */
    count(kind, name) {
        return this.events().filter(({ event, worker }) => event === kind && (name ?? worker) === worker).length;
    }

    requestsOf(name) {
        return this.server.requests.filter((request) => request.name === name && request.acting);
    }

    /** The number of changes that the write locks have refused so far, for any reason. */
    refused() {
        const metrics = readFileSync(this.path('tasks/metrics.prom'), 'utf8');
        const counts = metrics.matchAll(/^crewfs_refused_changes_total\{.*\} (\d+)$/gm);
        return [...counts].reduce((sum, [, count]) => sum + Number(count), 0);
    }

    shared() {
        return readFileSync(this.path(SHARED), 'utf8');
    }

    output({ name }) {
        return readFileSync(join(this.place, name, 'output'), 'utf8');
    }

    /** Whether each worker has ended its turn and waits in its stop hook. Fails when a worker has ended too early. */
    rests() {
        return this.workers.every(({ client, name, ended }) => {
            if (ended && !CLIENTS[client].once) {
                throw new Error(`${name} (${client}) stopped in the middle`);
            }
            return ended || this.requestsOf(name).at(-1)?.action.say;
        });
    }

    /** End all workers, unmount, and remove everything; `keep` leaves the files for a diagnosis. */
    async end({ keep = false } = {}) {
        crews.delete(this);
        for (const { process, ended } of this.workers) {
            if (!ended) {
                try {
                    globalThis.process.kill(-process.pid, 'SIGKILL');
                } catch {
                    // The process has ended just now.
                }
            }
        }
        this.server?.close();
        if (this.mounted) {
            try {
                await until('nobody uses the mount', 20_000, () => {
                    try {
                        crewfs('umount', this.project);
                        return true;
                    } catch {
                        return false;
                    }
                });
            } catch {
                crewfs('umount', '--lazy', this.project);
            }
        }
        if (!keep) {
            rmSync(this.place, { recursive: true, force: true });
        }
    }
}
