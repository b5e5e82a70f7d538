// Runs all scenarios, or those whose names contain an argument. Exits with 0 if all succeed.
import { endAll } from './crew.mjs';
import { SCENARIOS, run } from './scenarios.mjs';

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.on(signal, async () => {
        await endAll();
        process.exit(1);
    });
}

const wanted = process.argv.slice(2);
const names = Object.keys(SCENARIOS).filter((name) => !wanted.length || wanted.some((part) => name.includes(part)));
let well = names.length > 0;
for (const name of names) {
    well = (await run(name, Boolean(process.env.CREWFS_KEEP))) && well;
}
console.log(well ? '\nAll is well.' : '\nNot all is well.');
process.exitCode = well ? 0 : 1;
