// Search in pages that are opened as files. Browsers start no worker from file://; an invisible frame does its work.
// The theme asks for `Worker`, and its worker looks for `IFrameWorker` in the parent.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.documentElement.appendChild(frame);
      const inside = (this.inside = frame.contentWindow);
      const waiting = [];
      this.waiting = waiting;
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      inside.importScripts = (...urls) => urls.reduce((before, src) => before.then(() => load(inside.document, src)), Promise.resolve());
      load(inside.document, new URL(url, document.baseURI).href).then(() => {
        this.waiting = null;
        waiting.forEach((data) => this.postMessage(data));
      });
    }
    postMessage(data) {
      if (this.waiting) this.waiting.push(data);
      else this.inside.dispatchEvent(new MessageEvent("message", { data }));
    }
  };
  window.Worker = window.IFrameWorker;

  function load(where, src) {
    return new Promise((done, failed) => {
      const script = where.createElement("script");
      Object.assign(script, { src, onload: done, onerror: failed });
      where.body.appendChild(script);
    });
  }
}
