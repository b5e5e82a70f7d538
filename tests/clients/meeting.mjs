// A place where workers wait for each other, so that they change the shared file in the same moment, which they would
// do only sometimes. Must never: hold anybody for longer than its limit, for the others may have nothing to do.

export class Meeting {
    #waiting = [];

    constructor(size, limit) {
        this.size = size;
        this.limit = limit;
    }

    /** Returns when as many as the meeting is for are here, or at the limit. */
    join() {
        return new Promise((go) => {
            const leave = () => {
                this.#waiting = this.#waiting.filter((other) => other !== leave);
                clearTimeout(timer);
                go();
            };
            const timer = setTimeout(leave, this.limit);
            this.#waiting.push(leave);
            if (this.#waiting.length >= this.size) {
                this.#waiting.forEach((other) => other());
            }
        });
    }
}
