// The plugin for opencode: runs the scripts of this directory, which other clients run as hooks.
// May assume: it lies two directories below the project, as .opencode/plugin/crewfs.js does.
// Must never: access the project after it was loaded, because a mount that hangs would hang all of opencode. So the scripts are read
// once and run outside of the project, whose path they get in a variable.

import { spawn, spawnSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

// In seconds. opencode has no limit of its own.
const LONGEST_WAIT = 3500
const WRITERS = ["edit", "write", "patch", "apply_patch", "multiedit"]

export const Crewfs = async ({ client, directory }) => {
  const hooks = join(dirname(fileURLToPath(import.meta.url)), "../../.crew/hooks")
  const read = (name) => readFileSync(join(hooks, name), "utf8")
  const desk = read("desk.sh")
  const script = Object.fromEntries(
    ["stop", "session-start", "session-end", "failed-write"].map((hook) => [hook, desk + read(`${hook}.sh`)]),
  )
  const env = { ...process.env, CLAUDE_PROJECT_DIR: directory }
  const command = (hook) => ["/bin/sh", ["-c", script[hook], "crewfs", "opencode", `${LONGEST_WAIT}`]]
  const waiting = new Map()
  const context = new Map()

  // The answer of a hook, or nothing after any error: the agent then continues without it.
  const run = (hook, input) =>
    new Promise((resolve) => {
      const child = spawn(...command(hook), { cwd: "/", env, stdio: ["pipe", "pipe", "ignore"] })
      let answer = ""
      child.on("error", () => resolve(undefined))
      child.stdin.on("error", () => {})
      child.stdin.end(JSON.stringify(input))
      child.stdout.on("data", (data) => (answer += data))
      child.on("close", () => {
        try {
          resolve(JSON.parse(answer))
        } catch {
          resolve(undefined)
        }
      })
      if (hook === "stop") waiting.set(input.session_id, child)
    })

  const text = (words) => [{ type: "text", text: words, synthetic: true }]
  const advice = async (input) =>
    (await run("failed-write", { hook_event_name: "tool.execute.after", ...input }))?.hookSpecificOutput?.additionalContext

  const idle = async (id) => {
    const session = await client.session.get({ path: { id } })
    // A session with a parent is part of the parent's turn.
    if (!session.data || session.data.parentID || waiting.has(id)) return
    const answer = await run("stop", { hook_event_name: "session.idle", session_id: id })
    // The user may have sent a message meanwhile.
    const silent = waiting.delete(id)
    if (silent && answer?.decision === "block") {
      await client.session.promptAsync({ path: { id }, body: { parts: text(answer.reason) } })
    } else if (answer?.systemMessage) {
      await client.app.log({ body: { service: "crewfs", level: "warn", message: answer.systemMessage } })
    }
  }

  const failed = async ({ sessionID: id, tool, state }) => {
    const said = await advice({ session_id: id, tool_name: tool, tool_input: state.input, error: state.error })
    if (said) await client.session.promptAsync({ path: { id }, body: { noReply: true, parts: text(said) } })
  }

  process.once("exit", () => spawnSync(...command("session-end"), { cwd: "/", env, input: "{}", timeout: 2000 }))

  return {
    event: async ({ event }) => {
      const { type, properties } = event
      if (type === "session.idle") await idle(properties.sessionID)
      const part = type === "message.part.updated" && properties.part
      if (part?.type === "tool" && part.state.status === "error" && WRITERS.includes(part.tool)) await failed(part)
    },
    "chat.message": async ({ sessionID }) => {
      waiting.get(sessionID)?.kill()
      waiting.delete(sessionID)
    },
    "tool.execute.after": async ({ tool, sessionID, args }, output) => {
      if (tool !== "bash") return
      const said = await advice({ session_id: sessionID, tool_name: tool, tool_input: args, tool_response: output.output })
      if (said) output.output += `\n${said}`
    },
    "experimental.chat.system.transform": async ({ sessionID }, output) => {
      // Use the same text each time: the model reads, and the user pays for, a changed system prompt again.
      if (!context.has(sessionID)) context.set(sessionID, run("session-start", { session_id: sessionID }))
      const said = (await context.get(sessionID))?.hookSpecificOutput?.additionalContext
      if (said) output.system.push(said)
    },
  }
}
