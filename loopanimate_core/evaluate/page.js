"use strict";
const loops = JSON.parse(document.getElementById("loops").textContent);
const near = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((one) => one.isIntersecting)) {
    near.unobserve(entry.target);
    attach(entry.target, loops[Number(entry.target.dataset.loop)]);
  }
}, { rootMargin: "600px" });
document.querySelectorAll("canvas[data-loop]").forEach((canvas) => near.observe(canvas));

const play = document.getElementById("play"), speed = document.getElementById("speed");
const fastest = Math.max(1, ...loops.map((loop) => loop.fps));
function setPlaying(playing) {
  clock.playing = playing;
  play.textContent = playing ? "Pause" : "Play";
}
function step(frames) {
  setPlaying(false);
  clock.seconds = Math.max(0, (Math.round(clock.seconds * fastest) + frames) / fastest);
}
play.onclick = () => setPlaying(!clock.playing);
document.getElementById("back").onclick = () => step(-1);
document.getElementById("next").onclick = () => step(1);
document.getElementById("start").onclick = () => { clock.seconds = 0; };
speed.oninput = () => { clock.speed = Number(speed.value); speed.nextElementSibling.textContent = speed.value + " ×"; };
