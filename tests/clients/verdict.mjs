// The outcome of a scenario, counted from three sources: the event log, the shared file, and the requests to the models.
// Must never: rely on what a client reports.
import { CLIENTS } from './clients.mjs';
import { HEADING, entryOf } from './minds.mjs';

const BUSY = /EBUSY|resource busy/i;
const CHANGED = /modified since|has changed since/i;

/** One row of the summary for each worker. */
export function rows(crew) {
    return crew.workers.map((worker) => {
        const requests = crew.requestsOf(worker.name);
        const said = requests.flatMap(({ last }) => last?.said ?? []);
        const failed = requests.filter(({ last }) => last?.failed && last.step === 'change');
        return {
            worker: worker.name,
            client: worker.client,
            claimed: crew.count('claimed', worker.name),
            completed: crew.count('completed', worker.name),
            'hook blocks': said.filter((text) => /is ready\.|You hold/.test(text)).length,
            requests: requests.length,
            'woken idle': said.filter((text) => /No task is ready/.test(text)).length,
            EBUSY: failed.filter(({ last }) => BUSY.test(last.text)).length,
            'own check': failed.filter(({ last }) => !BUSY.test(last.text) && CHANGED.test(last.text)).length,
            'other errors': failed.filter(({ last }) => !BUSY.test(last.text) && !CHANGED.test(last.text)).length,
            seconds: ((worker.ended ?? Date.now()) - worker.started) / 1000,
            exit: worker.signal ?? worker.code ?? 'runs',
        };
    });
}

/** The events of one task, in order, as `kind worker` each. */
export function story(crew, id) {
    const kinds = ['claimed', 'returned', 'completed', 'failed'];
    const of = crew.events().filter(({ event, task }) => task === id && kinds.includes(event));
    return of.map(({ event, worker }) => `${event} ${worker}`);
}

/**
 * The faults in the work on these tasks, as sentences. Each task must be claimed once and completed once by the same worker, unless
 * `stories` has another history for it, and its line must be in the file once.
 */
export function wrongWork(crew, ids, stories = {}) {
    const found = [];
    for (const id of ids) {
        const told = story(crew, id).join(', ');
        if (!(stories[id] ?? /^claimed (\S+), completed \1$/).test(told)) {
            found.push(`${id}: ${told || 'nobody did it'}`);
        }
    }
    const lines = crew.shared().split('\n').filter(Boolean);
    for (const line of [HEADING, ...ids.map(entryOf)]) {
        const times = lines.filter((it) => it === line).length;
        if (times !== 1) {
            found.push(`the shared file has "${line}" ${times} times`);
        }
    }
    if (lines.length !== ids.length + 1) {
        found.push(`the shared file has ${lines.length} lines instead of ${ids.length + 1}`);
    }
    for (const { broken } of crew.server.requests) {
        if (broken) {
            found.push(`the stand-in failed: ${broken}`);
        }
    }
    return found;
}

/** The faults of the workers. Each must have done a task, been continued by its hook, and stopped by itself. */
export function wrongWorkers(crew) {
    const found = [];
    for (const row of rows(crew)) {
        const is = (good, what) => good || found.push(`${row.worker} (${row.client}) ${what}`);
        is(row.exit === 0, `ended with ${row.exit}, and should have stopped by itself`);
        is(row.completed > 0, 'did nothing');
        is(CLIENTS[row.client].once || row['hook blocks'] > 0, 'was never kept on by its hook');
        is(row['woken idle'] === 0, `was woken ${row['woken idle']} times without work`);
    }
    return found;
}

/** A table of objects with the same members, for people. */
export function table(objects) {
    const heads = Object.keys(objects[0]);
    const cells = [heads, ...objects.map((object) => heads.map((head) => String(object[head])))];
    const widths = heads.map((_, column) => Math.max(...cells.map((row) => row[column].length)));
    return cells.map((row) => row.map((cell, column) => cell.padEnd(widths[column])).join('  ').trimEnd()).join('\n');
}
