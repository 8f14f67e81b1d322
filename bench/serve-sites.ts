/* Two sites as processes with one session in sync: what `bench/replication.ts` measures. The data plane of both is the real one;
 * this process is their witness and control plane, which have nothing to do while a session is in sync.
 * Arguments: size in bytes, `keyed` or `tls`. Prints {"socket","export","writer","replica"} when in sync; SIGTERM ends it. */
import { systemClock } from '#base/system/clock.ts'
import { createAuthority, issueCertificate } from '#base/system/pki.ts'
import { Lab } from '../test/integration/replication-lab/lab.ts'

const [size = '', link = 'keyed'] = process.argv.slice(2)
const lab = await Lab.make()
lab.settings = {
  peerSilenceMs: 4_000,
  heartbeatMs: 500,
  holdBytes: 64 * 1024 * 1024,
  intentClearMs: 10_000,
}
if (link === 'tls') {
  const authority = await createAuthority('benchmark', systemClock.wallMs())
  const certified = async (site: string) => {
    const identity = { kind: 'agent', site, agent: `${site}-agent` } as const
    const leaf = { identity, hosts: ['127.0.0.1'], lifetimeDays: 1 }
    return issueCertificate(authority, leaf, systemClock.wallMs())
  }
  const credentials = { az1: await certified('az1'), az2: await certified('az2') }
  lab.security = (site) => ({
    kind: 'tls',
    ca: authority.cert,
    ...credentials[site === 'az1' ? 'az1' : 'az2'],
  })
}
process.once('SIGTERM', () => {
  void lab.end().then(() => process.exit(0))
})
await lab.start([{ index: 1, sizeBytes: Number(size), blank: true }])
await lab.protect()
const { socket, pid } = lab.a
console.log(JSON.stringify({ socket, export: 'pair-1', writer: pid, replica: lab.b.pid }))
