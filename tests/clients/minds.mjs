// What the scripted models think: from a conversation, the next action. Nothing here knows a client or a protocol.
//
// A conversation is what happened, oldest first: `{ said }` is a prompt or what a stop hook answered, and
// `{ step, text, failed }` is what came of the action of that step. An action is `{ say }`, which ends the turn, or
// `{ step, kind, what }` with the kinds `run` (a command), `read` (a path), `edit` (`{ path, old, new }`) and `write`
// (`{ path, text }`).
// Must never: remember anything between two calls. A mind knows what stands in the conversation, as a model does.

/** The file that all tasks change, and what a line of it looks like, whatever a client puts before it. */
export const SHARED = 'notes.md';
export const HEADING = '# Notes';
const LINE = /(?:# Notes|- entry \S+)$/gm;

export const entryOf = (id) => `- entry ${id}`;

/** The instructions of a task, in which the worker below finds what it has to do. */
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
 * A worker as the guide for workers asks for it: claim, read, do, finish; what is refused is read again. It writes a whole
 * file only if its client `rewrites`, and otherwise edits.
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

/** A coordinator: it writes these tasks, waits until they are done, and says what came of them. */
export function coordinator(tasks) {
    const wait = 'until [ "$(ls tasks/completed | wc -l)" = COUNT ]; do sleep 1; done; cat tasks/completed/*';
    const steps = [
        // It is no worker: without this its stop hook would have it do its own tasks.
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
