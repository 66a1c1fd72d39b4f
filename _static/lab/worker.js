// Runs jobs off the page's own thread.

import { Jobs } from "./jobs.js";

const jobs = new Jobs((message) => postMessage(message));
onmessage = ({ data }) => jobs.receive(data);
postMessage({ ready: true });
