addEventListener("message", (event) => {
  const frame = document.querySelector("iframe.explorer");
  if (event.source === frame.contentWindow && event.data.explorerHeight > 0) frame.style.height = `${event.data.explorerHeight}px`;
});
