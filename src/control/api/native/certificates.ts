import type { Clock } from '#base/clock.ts'
import { type Credential, issueCertificate, NBD_CLIENT_DAYS } from '#base/system/pki.ts'
import type { ClientCertificates } from './services.ts'

const DAY_MS = 86_400_000

/** Signs client certificates with the installation's authority. */
export const clientCertificates = (authority: Credential, clock: Clock): ClientCertificates => ({
  async issue(project, user) {
    const nowMs = clock.wallMs()
    const spec = {
      identity: { kind: 'nbd-client' as const, project, user },
      hosts: [],
      lifetimeDays: NBD_CLIENT_DAYS,
    }
    const { cert, key } = await issueCertificate(authority, spec, nowMs)
    return { cert, key, expiresAtMs: nowMs + NBD_CLIENT_DAYS * DAY_MS }
  },
})
