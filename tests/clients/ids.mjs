// Ids of messages and calls. The id of a call contains the step, so that its answer can be assigned to the step.
let count = 0;

export function newId(prefix, step = 'text') {
    count += 1;
    return `${prefix}_${step}_${count}`;
}

/** The step of the action whose call had this id. */
export function stepOf(id) {
    return id.split('_').at(-2);
}
