import { certificates, Lab } from './lab.ts'

/* Two site processes with one session in sync, for measuring: `serve.ts SIZE_BYTES keyed|tls`. Prints one line of JSON with the
 * unix socket, the export and the process ids, and ends with SIGTERM. */

const [size = '', kind = 'keyed'] = process.argv.slice(2)
const lab = await Lab.make()
// The settings of an installation, not the hasty ones of tests.
lab.settings = {
  peerSilenceMs: 4_000,
  heartbeatMs: 500,
  renewMs: 2_000,
  holdBytes: 64 * 1024 * 1024,
  intentClearMs: 10_000,
}
if (kind === 'tls') lab.security = await certificates()
const end = () => {
  void lab.end().then(() => process.exit(0))
}
process.once('SIGTERM', end)
process.once('SIGINT', end)
await lab.start([{ index: 1, sizeBytes: Number(size), blank: true }])
await lab.protect()
const { socket, pid } = lab.a
console.log(
  JSON.stringify({
    socket,
    export: 'pair-1',
    writer: pid,
    replica: lab.b.pid,
    directory: lab.directory,
  }),
)
