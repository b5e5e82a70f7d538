// What is tried with real clients. Each scenario gathers a crew, lets it work, and says what was wrong, if anything.
import { Crew, until } from './crew.mjs';
import { Meeting } from './meeting.mjs';
import { instructions, worker } from './minds.mjs';
import { faults, rows, table } from './verdict.mjs';

const PROMPT = 'You are a worker of this crew. Work as .crew/WORKER.md says.';
/** Longer than the slowest client takes for a task, so that nobody stops while another one is still at work. */
const IDLE = 20;
const QUIET = 3_000;
const MINUTES = 60_000;

const numbers = (from, to) => Array.from({ length: to - from + 1 }, (_, n) => `t${String(from + n).padStart(2, '0')}`);

/** Nobody does anything: each of them has ended its turn, and waits in its stop hook. */
function allWait(crew) {
    return crew.workers.every(({ name }) => crew.requestsOf(name).at(-1)?.action.say);
}

/**
 * Workers do eight tasks, wait without work, are given four more, and stop when there is nothing left. Whoever is about to make
 * its first try at a change waits a moment for another one, so that they collide.
 */
async function together(clients, collisions) {
    const meeting = new Meeting(Math.min(clients.length, 3), 1_500);
    const think = async (_, conversation) => {
        const action = worker(conversation);
        if (action.step === 'change' && conversation.at(-2).step === 'task') {
            await meeting.join();
        }
        return action;
    };
    const crew = await Crew.gather({ clients, think, options: `idle_timeout=${IDLE}s` });
    const ids = numbers(1, 12);
    const publish = (id) => crew.publish(id, instructions(id, Number(id.slice(1)) % 2 ? 'Edit' : 'Write'));
    let found = [];
    let asked = -1;
    try {
        ids.slice(0, 8).forEach(publish);
        clients.forEach((client, n) => crew.start(client, `w${n + 1}`, PROMPT));
        await until('eight tasks are done', 3 * MINUTES, () => crew.completed() === 8 && allWait(crew));
        // The quiet itself is what is measured here.
        const before = crew.server.requests.length;
        await new Promise((go) => setTimeout(go, QUIET));
        asked = crew.server.requests.length - before;
        ids.slice(8).forEach(publish);
        await until('all stop by themselves', 3 * MINUTES, () => crew.workers.every(({ ended }) => ended));
        found = faults(crew, ids);
        if (asked !== 0) {
            found.push(`the models were asked ${asked} times while there was nothing to do`);
        }
        const refused = rows(crew).reduce((sum, row) => sum + row.EBUSY, 0);
        if (collisions && refused === 0) {
            found.push('nobody was refused: the shared file was not fought over');
        }
    } catch (error) {
        found.push(String(error.message), ...faults(crew, ids));
    }
    return { crew, found, notes: [`requests in ${QUIET / 1000} s without work: ${asked}`] };
}

export const SCENARIOS = {
    'three Claude Code workers': () => together(['claude', 'claude', 'claude'], true),
    'Claude Code, Codex, Gemini CLI and opencode': () => together(['claude', 'codex', 'gemini', 'opencode'], false),
};

/** Run one, print what came of it, and return whether all was well. */
export async function run(name, keep) {
    const began = Date.now();
    const { crew, found, notes } = await SCENARIOS[name]();
    console.log(`\n## ${name}\n`);
    console.log(table(rows(crew)));
    notes.forEach((note) => console.log(note));
    console.log(`wall time: ${((Date.now() - began) / 1000).toFixed(1)} s`);
    for (const fault of found) {
        console.log(`WRONG: ${fault}`);
    }
    for (const worker of found.length ? crew.workers : []) {
        console.log(`--- ${worker.name} (${worker.client}) printed:\n${crew.output(worker).slice(-1_500)}`);
    }
    await crew.end({ keep });
    if (keep) {
        console.log(`kept: ${crew.place}`);
    }
    return found.length === 0;
}
