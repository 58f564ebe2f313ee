"use strict";
// Plays loops on canvases, all by one clock. A loop is a sheet: a picture with its frames in rows.
const clock = { seconds: 0, speed: 1, playing: true, before: 0 };
const shown = new Set();

function attach(canvas, loop) {
  canvas.width = loop.width;
  canvas.height = loop.height;
  canvas.wanted = loop; // a canvas may get another loop before this one has loaded
  const image = new Image();
  image.onload = () => {
    if (canvas.wanted === loop) shown.add({ loop, image, context: canvas.getContext("2d"), drawn: -1 });
  };
  image.onerror = () => canvas.replaceWith("the sheet of this loop is missing");
  image.src = loop.sheet;
}

function draw(screen) {
  const { loop, image, context } = screen;
  const index = Math.floor(clock.seconds * loop.fps + 1e-6) % loop.frames;
  if (index === screen.drawn) return;
  screen.drawn = index;
  const left = (index % loop.columns) * loop.width, top = Math.floor(index / loop.columns) * loop.height;
  context.drawImage(image, left, top, loop.width, loop.height, 0, 0, loop.width, loop.height);
}

function tick(now) {
  if (clock.playing) clock.seconds += (Math.min(now - clock.before, 250) / 1000) * clock.speed;
  clock.before = now;
  shown.forEach(draw);
  requestAnimationFrame(tick);
}
requestAnimationFrame(tick);
