// Anthropic's Messages API, as far as Claude Code and opencode use it: turns a request into a conversation, and an action into an
// answer.
// May assume: the tools of one of the two. Must never: decide anything.
import { newId, stepOf } from './ids.mjs';

export const path = /^\/v1\/messages$/;

const CALLS = {
    run: (command) => ['Bash', { command, description: 'Run the next command' }],
    read: (file, at) => ['Read', { file_path: at(file) }],
    edit: (edit, at) => ['Edit', { file_path: at(edit.path), old_string: edit.old, new_string: edit.new }],
    write: (write, at) => ['Write', { file_path: at(write.path), content: write.text }],
};

/** opencode has the same tools, with other names for the tools and their arguments. */
const small = (name) => name.toLowerCase();
const camel = (name) => name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());

const asText = (content) =>
    typeof content === 'string' ? content : (content ?? []).map((part) => part.text ?? '').join('\n');

function* happened(messages) {
    for (const { content } of messages.filter(({ role }) => role === 'user')) {
        for (const part of typeof content === 'string' ? [{ type: 'text', text: content }] : content) {
            if (part.type === 'tool_result') {
                const text = asText(part.content);
                // opencode does not report how a command ended.
                const failed = part.is_error === true || /^(?:cat|touch|\S*sh): .*: /m.test(text);
                yield { step: stepOf(part.tool_use_id), text, failed };
            } else if (part.type === 'text') {
                yield part.text.startsWith('<system-reminder>') ? { note: part.text } : { said: part.text };
            }
        }
    }
}

export function read(body) {
    const tools = (body.tools ?? []).map((tool) => tool.name);
    const dialect = ['Bash', 'bash'].find((name) => tools.includes(name));
    return { acting: dialect !== undefined, dialect, happened: [...happened(body.messages)] };
}

export function* answer(action, at, dialect) {
    const event = (type, data) => `event: ${type}\ndata: ${JSON.stringify({ type, ...data })}\n\n`;
    const message = {
        id: newId('msg'),
        type: 'message',
        role: 'assistant',
        model: 'scripted',
        content: [],
        stop_reason: null,
        stop_sequence: null,
        usage: { input_tokens: 1, output_tokens: 1 },
    };
    yield event('message_start', { message });
    if (action.say) {
        yield event('content_block_start', { index: 0, content_block: { type: 'text', text: '' } });
        yield event('content_block_delta', { index: 0, delta: { type: 'text_delta', text: action.say } });
    } else {
        let [name, input] = CALLS[action.kind](action.what, at);
        if (dialect === 'bash') {
            name = small(name);
            input = Object.fromEntries(Object.entries(input).map(([key, value]) => [camel(key), value]));
        }
        const block = { type: 'tool_use', id: newId('toolu', action.step), name, input: {} };
        yield event('content_block_start', { index: 0, content_block: block });
        const partial_json = JSON.stringify(input);
        yield event('content_block_delta', { index: 0, delta: { type: 'input_json_delta', partial_json } });
    }
    yield event('content_block_stop', { index: 0 });
    const stop_reason = action.say ? 'end_turn' : 'tool_use';
    yield event('message_delta', { delta: { stop_reason, stop_sequence: null }, usage: { output_tokens: 1 } });
    yield event('message_stop', {});
}
