// Acts as opencode for its plugin: loads the plugin that its argument names, passes on the events from standard input, one JSON object
// a line, and prints the plugin's requests and the data that the plugin leaves in it.
// Must never: end before the plugin has answered everything.

import { createInterface } from "node:readline"

const say = (what, value) => console.log(JSON.stringify({ [what]: value }))
const client = {
  session: {
    get: async ({ path }) => ({ data: { id: path.id, parentID: path.id === "child" ? "parent" : undefined } }),
    promptAsync: async (prompt) => say("prompt", prompt),
  },
  app: { log: async ({ body }) => say("log", body) },
}

const [plugin, directory] = process.argv.slice(2)
const { Crewfs } = await import(plugin)
const hooks = await Crewfs({ client, directory })
for await (const line of createInterface({ input: process.stdin })) {
  const { hook, input, output } = JSON.parse(line)
  await hooks[hook](input, output)
  if (output) say(hook, output)
}
