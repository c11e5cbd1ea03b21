// The frame of an explorer is a page of its own, apart from this one: it tells how high it is, and nothing else passes.
addEventListener("message", (event) => {
  for (const frame of document.querySelectorAll("iframe.explorer")) {
    if (event.source === frame.contentWindow && event.data.explorerHeight > 0) frame.style.height = `${event.data.explorerHeight}px`;
  }
});
