// The stand-in for the model APIs: one HTTP server on loopback that speaks three of them, with scripted answers. It records a line for
// each request, and the verdict counts these lines.
// Must never: be reachable from another machine; leave a client waiting for an answer that will not come.
import { appendFileSync } from 'node:fs';
import { createServer } from 'node:http';
import * as anthropic from './anthropic.mjs';
import * as gemini from './gemini.mjs';
import * as openai from './openai.mjs';

const PROTOCOLS = [anthropic, openai, gemini];

/** The key that a client was given is the name of its worker. */
function nameOf({ headers }) {
    const bearer = headers.authorization?.replace(/^Bearer /, '');
    return headers['x-api-key'] ?? headers['x-goog-api-key'] ?? bearer ?? null;
}

async function bodyOf(request) {
    let text = '';
    for await (const chunk of request) {
        text += chunk;
    }
    return text;
}

/**
 * Serve on a port of the system's choice. `think(name, conversation)` returns the next action; `at(path)` is the absolute
 * path of a file of the project; `log` is a file for the requests, one JSON object a line.
 */
export async function serve({ think, at, log }) {
    const requests = [];
    const keep = (entry) => {
        requests.push({ at: Date.now(), ...entry });
        appendFileSync(log, `${JSON.stringify(requests.at(-1))}\n`);
    };

    async function turn(protocol, name, body, response) {
        const { acting, dialect, happened } = protocol.read(body);
        const notes = happened.flatMap(({ note }) => note ?? []);
        const conversation = happened.filter(({ note }) => note === undefined);
        // A client also makes requests of its own without tools, such as for a title.
        const action = acting ? await think(name, conversation) : { say: 'Work on tasks' };
        keep({ name, acting, turns: conversation.length, last: conversation.at(-1), notes, action });
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        for (const chunk of protocol.answer(action, at, dialect)) {
            response.write(chunk);
        }
        response.end();
    }

    function refuse(response, name, what) {
        keep({ name, refused: what });
        response.writeHead(404, { 'content-type': 'application/json' });
        response.end(JSON.stringify({ error: { code: 404, message: 'the stand-in does not know this' } }));
    }

    const server = createServer(async (request, response) => {
        const name = nameOf(request);
        const { pathname } = new URL(request.url, 'http://loopback');
        const protocol = PROTOCOLS.find(({ path }) => request.method === 'POST' && path.test(pathname));
        try {
            const body = await bodyOf(request);
            if (protocol) {
                await turn(protocol, name, JSON.parse(body), response);
            } else {
                refuse(response, name, `${request.method} ${pathname}`);
            }
        } catch (error) {
            keep({ name, broken: String(error?.stack) });
            response.destroy();
        }
    });
    await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
    const close = () => {
        server.close();
        server.closeAllConnections();
    };
    return { port: server.address().port, requests, close };
}
