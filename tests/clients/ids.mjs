// Ids of messages and calls. That of a call carries the step, so that an answer to it says which step it belongs to.
let count = 0;

export function newId(prefix, step = 'text') {
    count += 1;
    return `${prefix}_${step}_${count}`;
}

/** The step of the action whose call had this id. */
export function stepOf(id) {
    return id.split('_').at(-2);
}
