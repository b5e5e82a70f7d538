// The scenarios with real clients. Each starts workers, lets them work, and returns what was wrong, if anything.
import { CLIENTS } from './clients.mjs';
import { Crew, until } from './crew.mjs';
import { Meeting } from './meeting.mjs';
import { coordinator, instructions, worker } from './minds.mjs';
import { rows, story, table, wrongWork, wrongWorkers } from './verdict.mjs';

const PROMPT = 'You are a worker of this crew. Work as .crew/WORKER.md says.';
/** In seconds; longer than the slowest client takes for a task, so that no worker stops while another one works. */
const IDLE = 30;
const QUIET = 3_000;
const MINUTE = 60_000;

const numbered = (count) => Array.from({ length: count }, (_, n) => `t${String(n + 1).padStart(2, '0')}`);
const task = (id) => instructions(id, Number(id.slice(1)) % 2 ? 'Edit' : 'Write');

/**
 * Workers do eight tasks, wait without work, get four more, and stop when no task is left. A worker that is about to change the
 * file waits a moment for the others, so that they collide.
 */
async function together(clients, mustCollide) {
    const meeting = new Meeting(Math.min(clients.length, 3), 1_500);
    const think = async (name, conversation) => {
        const action = worker(conversation, CLIENTS[clients[name.slice(1) - 1]].rewrites);
        if (action.step === 'change' && conversation.at(-2)?.step === 'task') {
            await meeting.join();
        }
        return action;
    };
    const crew = await Crew.gather({ clients, think, options: `idle_timeout=${IDLE}s` });
    const ids = numbered(12);
    const found = [];
    let asked = 'not measured';
    try {
        ids.slice(0, 8).forEach((id) => crew.publish(id, task(id)));
        for (const [n, client] of clients.entries()) {
            const { name } = crew.start(client, `w${n + 1}`, PROMPT);
            // Otherwise a fast client would do all tasks before a slow one has begun.
            await until(`${name} (${client}) works`, MINUTE, () => crew.count('claimed', name) > 0);
        }
        await until('eight tasks are done, and all wait', 3 * MINUTE, () => crew.rests() && crew.count('completed') === 8);
        // This pause measures whether clients are quiet.
        const before = crew.server.requests.length;
        await new Promise((go) => setTimeout(go, QUIET));
        asked = crew.server.requests.length - before;
        ids.slice(8).forEach((id) => crew.publish(id, task(id)));
        await until('all stop by themselves', 3 * MINUTE, () => crew.workers.every(({ ended }) => ended));
        if (asked !== 0) {
            found.push(`the models were asked ${asked} times while there was nothing to do`);
        }
        // Claude Code itself checks whether a file has changed, so not every collision reaches the mount.
        if (mustCollide && rows(crew).every((row) => row.EBUSY + row['own check'] === 0)) {
            found.push('nobody was refused: the shared file was not fought over');
        }
    } catch (error) {
        found.push(error.message);
    }
    found.push(...wrongWork(crew, ids), ...wrongWorkers(crew));
    const notes = [
        `requests in ${QUIET / 1000} s without work: ${asked}`,
        `changes that the mount refused: ${crew.refused()}`,
    ];
    return { crew, found, notes };
}

/**
 * A coordinator publishes three tasks and waits for them. A worker is killed in the middle of the first; another one
 * does all three, and the coordinator reads the results.
 */
async function killed() {
    const ids = numbered(3);
    const lead = coordinator(ids.map((id) => ({ id, text: task(id) })));
    const think = async (name, conversation) => {
        if (name === 'lead') {
            return lead(conversation);
        }
        const action = worker(conversation, CLIENTS.claude.rewrites);
        // The model of the worker that will be killed never answers.
        return name === 'doomed' && action.step === 'change' ? new Promise(() => {}) : action;
    };
    const crew = await Crew.gather({ clients: ['claude'], think, options: `idle_timeout=${IDLE}s` });
    const found = [];
    let back = 'not measured';
    try {
        const leading = crew.start('claude', 'lead', `Have the entries ${ids.join(', ')} added.`, { anonymous: true });
        await until('the tasks are published', MINUTE, () => crew.count('published') === ids.length);
        const doomed = crew.start('claude', 'doomed', PROMPT);
        const begun = () => crew.requestsOf('doomed').at(-1)?.action.step === 'look';
        await until('the first task is begun', MINUTE, begun);
        process.kill(-doomed.process.pid, 'SIGKILL');
        const since = Date.now();
        await until('its claim is back', 10_000, () => story(crew, 't01').includes('returned doomed'));
        back = Date.now() - since;
        crew.start('claude', 'other', PROMPT);
        await until('the coordinator is done', 3 * MINUTE, () => leading.ended);
        await until('the other one stops', 2 * MINUTE, () => crew.workers.every(({ ended }) => ended));
        const said = crew.requestsOf('lead').at(-1).action.say ?? '';
        const unseen = ids.filter((id) => !said.includes(`entry of ${id}`));
        found.push(...unseen.map((id) => `the coordinator did not see the result of ${id}`));
        if (doomed.signal !== 'SIGKILL' || leading.code !== 0) {
            found.push('somebody ended otherwise than meant');
        }
    } catch (error) {
        found.push(error.message);
    }
    const stories = { t01: /^claimed doomed, returned doomed, claimed other, completed other$/ };
    found.push(...wrongWork(crew, ids, stories));
    return { crew, found, notes: [`ms from kill -9 to the claim's return: ${back}`] };
}

export const SCENARIOS = {
    'three Claude Code workers': () => together(['claude', 'claude', 'claude'], true),
    'Claude Code, Codex, Gemini CLI and opencode': () => together(['opencode', 'gemini', 'codex', 'claude'], false),
    'a coordinator, and a worker that is killed': killed,
};

/** Run a scenario, print its outcome, and return whether it succeeded. */
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
    for (const one of found.length ? crew.workers : []) {
        console.log(`--- ${one.name} (${one.client}) printed:\n${crew.output(one).slice(-1_500)}`);
    }
    await crew.end({ keep });
    if (keep) {
        console.log(`kept: ${crew.place}`);
    }
    return found.length === 0;
}
