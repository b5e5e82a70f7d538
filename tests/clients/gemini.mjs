// Google's Gemini API, as far as Gemini CLI uses it: turns a request into a conversation, and an action into an answer.
// May assume: the tools of Gemini CLI. Must never: decide anything.
import { newId, stepOf } from './ids.mjs';

export const path = /^\/v1beta\/models\/[^/]*:streamGenerateContent$/;

/** The text that the client and its hooks add, in tags, and then the prompt. */
const TEXT = /^(?<notes>(?:<(?<tag>\w+_context)>[^]*?<\/\k<tag>>\s*)*)(?<said>[^]*)$/;

const CALLS = {
    run: (command) => ['run_shell_command', { command, description: 'Run the next command' }],
    read: (file, at) => ['read_file', { file_path: at(file) }],
    edit: (edit, at) => [
        'replace',
        { file_path: at(edit.path), instruction: 'Add the line', old_string: edit.old, new_string: edit.new },
    ],
    write: (write, at) => ['write_file', { file_path: at(write.path), content: write.text }],
};

function* happened(contents) {
    for (const part of contents.filter(({ role }) => role === 'user').flatMap(({ parts }) => parts)) {
        if (part.functionResponse) {
            const { id, response } = part.functionResponse;
            const text = String(response.error ?? response.output ?? '');
            const failed = response.error !== undefined || /^Exit Code: [1-9]|^Error\b/m.test(text);
            yield { step: stepOf(id), text, failed };
        } else if (part.text) {
            const { notes, said } = part.text.match(TEXT).groups;
            if (notes) {
                yield { note: notes };
            }
            if (said) {
                yield { said };
            }
        }
    }
}

export function read(body) {
    const tools = (body.tools ?? []).flatMap((tool) => tool.functionDeclarations ?? []);
    const acting = tools.some((tool) => tool.name === 'run_shell_command');
    return { acting, happened: [...happened(body.contents)] };
}

export function* answer(action, at) {
    let part = { text: action.say };
    if (!action.say) {
        const [name, args] = CALLS[action.kind](action.what, at);
        part = { functionCall: { id: newId('call', action.step), name, args } };
    }
    const candidate = { index: 0, content: { role: 'model', parts: [part] }, finishReason: 'STOP' };
    const usageMetadata = { promptTokenCount: 1, candidatesTokenCount: 1, totalTokenCount: 2 };
    yield `data: ${JSON.stringify({ candidates: [candidate], usageMetadata })}\n\n`;
}
