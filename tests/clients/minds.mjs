// The scripted models: each computes the next action from a conversation. This file knows no client and no protocol.
//
// A conversation is a list of past events, oldest first: `{ said }` is a prompt or the answer of a stop hook, and
// `{ step, text, failed }` is the outcome of the action of that step. An action is `{ say }`, which ends the turn, or
// `{ step, kind, what }` with the kinds `run` (a command), `read` (a path), `edit` (`{ path, old, new }`) and `write`
// (`{ path, text }`).
// Must never: keep state between two calls. A mind knows only the conversation, as a model does.

/** The file that all tasks change, and the form of its lines; a client may put text before a line. */
export const SHARED = 'notes.md';
export const HEADING = '# Notes';
const LINE = /(?:# Notes|- entry \S+)$/gm;

export const entryOf = (id) => `- entry ${id}`;

/** The instructions of a task, which the worker below parses. */
export function instructions(id, tool) {
    return `# Task: Add the entry of ${id}\n\nAdd the line \`${entryOf(id)}\` at the end of ${SHARED}, with ${tool}.\n`;
}

const run = (step, command) => ({ step, kind: 'run', what: command });
const write = (step, path, text) => ({ step, kind: 'write', what: { path, text } });
const newest = (conversation, step) => conversation.findLast((event) => event.step === step).text;
const look = { step: 'look', kind: 'read', what: SHARED };

function change(conversation, rewrites) {
    const [, line, tool] = newest(conversation, 'task').match(/Add the line `(.*?)` .*, with (\w+)\./);
    const lines = newest(conversation, 'look').match(LINE) ?? [];
    if (tool === 'Write' && rewrites) {
        return write('change', SHARED, [...lines, line, ''].join('\n'));
    }
    const last = lines.at(-1) ?? HEADING;
    return { step: 'change', kind: 'edit', what: { path: SHARED, old: last, new: `${last}\n${line}` } };
}

/**
 * A worker that follows the guide for workers: claim, read, do, complete; after a refusal it reads the file again. It writes a
 * whole file only if its client `rewrites`, and otherwise edits.
 */
export function worker(conversation, rewrites) {
    const last = conversation.at(-1);
    const task = run('task', 'cat tasks/workers/self/task');
    switch (last.step) {
        case undefined:
            return last.said.includes('You hold') ? task : run('claim', 'touch tasks/claim/next');
        case 'claim':
            return last.failed ? { say: 'Nothing could be claimed.' } : task;
        case 'task':
            return last.failed ? { say: 'There are no instructions.' } : look;
        case 'look':
            return last.failed ? { say: 'The file cannot be read.' } : change(conversation, rewrites);
        case 'change': {
            if (last.failed) {
                return look;
            }
            const [, id] = newest(conversation, 'task').match(/`- entry (\S+)`/);
            return run('finish', `echo 'added the entry of ${id}' > tasks/completed/${id}`);
        }
        default:
            return { say: last.failed ? 'The task could not be finished.' : 'The task is done.' };
    }
}

/** A coordinator: it writes these tasks, waits until they are done, and reports their results. */
export function coordinator(tasks) {
    const wait = 'until [ "$(ls tasks/completed | wc -l)" = COUNT ]; do sleep 1; done; cat tasks/completed/*';
    const steps = [
        // The coordinator is no worker: without this, its stop hook would make it do its own tasks.
        run('drain', 'touch tasks/workers/self/drain'),
        ...tasks.map(({ id, text }) => write(`publish-${id}`, `tasks/${id}.md`, text)),
        run('wait', wait.replace('COUNT', tasks.length)),
    ];
    return (conversation) => {
        const last = conversation.at(-1);
        if (last.failed) {
            return { say: `This failed: ${last.text}` };
        }
        const next = steps[steps.findIndex(({ step }) => step === last.step) + 1];
        return next ?? { say: `All is done: ${last.text}` };
    };
}
