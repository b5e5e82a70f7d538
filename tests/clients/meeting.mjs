// A place where workers wait for each other, so that they change the shared file in the same moment. Without it, that would happen only
// sometimes.
// Must never: hold a worker for longer than the limit, because the other workers may have nothing to do.

export class Meeting {
    #waiting = [];

    constructor(size, limit) {
        this.size = size;
        this.limit = limit;
    }

    /** Returns when `size` workers have joined, or at the limit. */
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
