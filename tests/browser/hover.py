"""How long it takes from the pointer to the lit set, measured inside the page."""

# From the pointer's event to the frame that shows the lit set, without the wait for that frame: the handler's own
# time, then style, layout and paint, which end with the message that is posted in the frame
HOVER = """async ([root, every]) => {
    const picture = root.picture, faces = [...root.querySelectorAll('.nv-backdrop [data-cell]')], times = [];
    root.querySelector('.nv-stage').scrollIntoView({block: 'center'});
    for (let k = 0; k < faces.length; k += every) {
        const box = faces[k].getBoundingClientRect();
        const [clientX, clientY] = [box.x + box.width / 2, box.y + box.height / 2];
        const at = {clientX, clientY, bubbles: true, pointerType: 'mouse'};
        await new Promise(requestAnimationFrame);
        const began = performance.now();
        faces[k].dispatchEvent(new PointerEvent('pointermove', at));
        const handled = performance.now() - began;
        const painted = await new Promise(done => requestAnimationFrame(() => {
            const frame = performance.now(), channel = new MessageChannel();
            channel.port1.onmessage = () => done(performance.now() - frame);
            channel.port2.postMessage(0);
        }));
        if (!root.querySelector('.nv-rim').getAttribute('d')) throw new Error('nothing is lit');
        times.push(handled + painted);
    }
    return times;
}"""
