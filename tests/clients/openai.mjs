// OpenAI's Responses API, as far as Codex uses it: turns a request into a conversation, and an action into an answer.
// May assume: the tools of Codex: a shell, and patches in its own format. Must never: decide anything.
import { newId, stepOf } from './ids.mjs';

export const path = /^\/v1\/responses$/;

const lines = (text, sign) => text.split('\n').map((line) => `${sign}${line}`);
const shell = (cmd) => ({ type: 'function_call', name: 'exec_command', arguments: JSON.stringify({ cmd }) });
const patching = (...parts) => ({
    type: 'custom_tool_call',
    name: 'apply_patch',
    input: ['*** Begin Patch', ...parts, '*** End Patch'].join('\n'),
});

const CALLS = {
    run: shell,
    read: (file) => shell(`cat ${file}`),
    edit: (edit) =>
        patching(`*** Update File: ${edit.path}`, '@@', ...lines(edit.old, '-'), ...lines(edit.new, '+')),
    write: (write) => patching(`*** Add File: ${write.path}`, ...lines(write.text.trimEnd(), '+')),
};

const asText = (content) =>
    typeof content === 'string' ? content : (content ?? []).map((part) => part.text ?? '').join('\n');

/** The past events, from the request's items. Text that the client adds itself is in tags or is the guide. */
function* happened(items) {
    for (const item of items) {
        if (item.type === 'function_call_output') {
            const text = asText(item.output);
            yield { step: stepOf(item.call_id), text, failed: !/exited with code 0\b/.test(text) };
        } else if (item.type === 'custom_tool_call_output') {
            const text = asText(item.output);
            yield { step: stepOf(item.call_id), text, failed: !/^Success\b/m.test(text) };
        } else if (item.type === 'message' && item.role === 'user') {
            const text = asText(item.content);
            yield /^(<(?!hook_prompt)|# AGENTS\.md)/.test(text) ? { note: text } : { said: text };
        } else if (item.type === 'message' && item.role === 'developer') {
            yield { note: asText(item.content) };
        }
    }
}

export function read(body) {
    const acting = (body.tools ?? []).some((tool) => tool.name === 'exec_command');
    return { acting, happened: [...happened(body.input)] };
}

export function* answer(action) {
    const id = newId('resp');
    const item = action.say
        ? { type: 'message', id: newId('msg'), role: 'assistant', content: [{ type: 'output_text', text: action.say }] }
        : { id: newId('item'), call_id: newId('call', action.step), ...CALLS[action.kind](action.what) };
    const usage = { input_tokens: 1, output_tokens: 1, total_tokens: 2 };
    for (const event of [
        { type: 'response.created', response: { id } },
        { type: 'response.output_item.added', output_index: 0, item },
        { type: 'response.output_item.done', output_index: 0, item },
        { type: 'response.completed', response: { id, output: [item], usage } },
    ]) {
        yield `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`;
    }
}
