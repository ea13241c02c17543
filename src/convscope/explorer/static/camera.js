// A photograph by the camera, within the page; phones have a dialog of their own, which the tray opens instead.

import { h } from "./dom.js";
import { say } from "./state.js";

export const there = () => Boolean(navigator.mediaDevices?.getUserMedia) && matchMedia("(hover: hover) and (pointer: fine)").matches;

/** Shows what the camera sees; what is taken goes to `opened`. */
export async function shoot(opened) {
  const video = h("video", { autoplay: true, playsInline: true, muted: true });
  const take = h("button", { type: "button", className: "main", disabled: true }, "Take it");
  const leave = h("button", { type: "button", onclick: () => dialog.close() }, "Close");
  const dialog = h("dialog", { className: "camera", "aria-label": "Take a photograph" }, video, h("p", { className: "buttons" }, take, leave));
  let stream = null;
  const off = () => stream?.getTracks().forEach((track) => track.stop());
  dialog.addEventListener("close", () => { off(); dialog.remove(); });
  document.body.append(dialog);
  dialog.showModal();
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    if (!dialog.open) return off();
    video.srcObject = stream;
    await video.play();
  } catch (error) {
    dialog.close();
    return say(error.name === "NotAllowedError" ? "The browser does not let this page use the camera." : "There is no camera that can be used.");
  }
  take.disabled = false;
  take.focus();
  take.addEventListener("click", () => {
    const still = h("canvas");
    [still.width, still.height] = [video.videoWidth, video.videoHeight];
    still.getContext("2d").drawImage(video, 0, 0);
    still.toBlob((blob) => { dialog.close(); opened([new File([blob], "photograph.jpg", { type: "image/jpeg" })]); }, "image/jpeg", 0.95);
  });
}
