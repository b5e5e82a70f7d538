// What happened, counted from three witnesses: the event log, the shared file, and what the models were asked.
// Must never: ask a client how it went.
import { HEADING, entryOf } from './minds.mjs';

const BUSY = /EBUSY|resource busy/i;
const CHANGED = /modified since|changed on disk|has been modified/i;

/** One row of the summary for each worker. */
export function rows(crew) {
    const events = crew.events();
    return crew.workers.map((worker) => {
        const requests = crew.requestsOf(worker.name);
        const said = requests.flatMap(({ last }) => last?.said ?? []);
        const failed = requests.filter(({ last }) => last?.failed && last.step === 'change');
        const whose = (event) => events.filter((it) => it.event === event && it.worker === worker.name).length;
        return {
            worker: worker.name,
            client: worker.client,
            claimed: whose('claimed'),
            completed: whose('completed'),
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

/** What is wrong with a crew that had these tasks to do, as sentences; none if all is well. */
export function faults(crew, ids) {
    const found = [];
    const events = crew.events();
    for (const id of ids) {
        const of = (kind) => events.filter(({ event, task }) => event === kind && task === id);
        const [claimed, completed] = [of('claimed'), of('completed')];
        if (claimed.length !== 1 || completed.length !== 1 || claimed[0].worker !== completed[0].worker) {
            found.push(`${id} was claimed ${claimed.length} and completed ${completed.length} times`);
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
    for (const row of rows(crew)) {
        const is = (good, what) => good || found.push(`${row.worker} (${row.client}) ${what}`);
        is(row.exit === 0, `ended with ${row.exit}, and should have stopped by itself`);
        is(row.completed > 0, 'did nothing');
        is(row['hook blocks'] >= row.completed - 1, `was kept on ${row['hook blocks']} times only`);
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
