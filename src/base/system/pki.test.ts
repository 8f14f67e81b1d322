import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, connect as connectPlain } from 'node:net'
import { test } from 'node:test'
import { connect, createServer, type TLSSocket } from 'node:tls'
import { commonName, type Identity, parseCommonName } from '../common-name.ts'
import { createAuthority, issueCertificate, renewalDue } from './pki.ts'

const DAY_MS = 86_400_000

test('a common name survives the way there and back, and anything else is no identity', () => {
  const identities: Identity[] = [
    { kind: 'control', region: 'local-1' },
    { kind: 'agent', site: 'az1', agent: 'az1-agent' },
    { kind: 'nbd-client', project: 'p1', user: 'u1' },
  ]
  for (const identity of identities) {
    assert.deepEqual(parseCommonName(commonName(identity)), identity)
  }
  for (const wrong of [
    '',
    'control',
    'control:',
    'control:a:b',
    'agent:az1',
    'agent:a:b:c',
    'x:a:b',
  ]) {
    assert.equal(parseCommonName(wrong), undefined, wrong)
  }
})

test('two parts of one authority open a mutual TLS connection and see who the other is', async () => {
  const nowMs = Date.now()
  const authority = await createAuthority('Holdfast test authority', nowMs)
  const server = await issueCertificate(
    authority,
    {
      identity: { kind: 'agent', site: 'az1', agent: 'a' },
      hosts: ['127.0.0.1'],
      lifetimeDays: 1,
    },
    nowMs,
  )
  const client = await issueCertificate(
    authority,
    { identity: { kind: 'control', region: 'local-1' }, hosts: [], lifetimeDays: 1 },
    nowMs,
  )
  const stranger = await createAuthority('Another authority', nowMs)
  const intruder = await issueCertificate(
    stranger,
    { identity: { kind: 'control', region: 'local-1' }, hosts: [], lifetimeDays: 1 },
    nowMs,
  )
  const listener = createServer({
    ca: authority.cert,
    ...server,
    requestCert: true,
    rejectUnauthorized: true,
  })
  listener.on('tlsClientError', () => listener.emit('refused'))
  listener.listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const { port } = listener.address() as AddressInfo
  try {
    const accepted = once(listener, 'secureConnection') as Promise<[TLSSocket]>
    const dialled = connect({ host: '127.0.0.1', port, ca: authority.cert, ...client })
    const [served] = await accepted
    assert.equal(served.getPeerCertificate().subject.CN, 'control:local-1')
    if (!dialled.authorized) await once(dialled, 'secureConnect')
    assert.equal(dialled.getPeerCertificate().subject.CN, 'agent:az1:a')
    dialled.destroy()
    served.destroy()

    const refused = once(listener, 'refused')
    const raw = connectPlain(port, '127.0.0.1')
    const second = connect({ socket: raw, host: '127.0.0.1', ca: authority.cert, ...intruder })
    second.on('error', () => raw.destroy())
    await refused
    second.destroy()
  } finally {
    listener.close()
  }
})

test('a certificate names what it covers, and never outlives its authority', async () => {
  const nowMs = Date.now()
  const authority = await createAuthority('Holdfast test authority', nowMs)
  const { cert, key } = await issueCertificate(
    authority,
    {
      identity: { kind: 'nbd-client', project: 'a'.repeat(32), user: 'b'.repeat(32) },
      hosts: ['10.1.2.3', 'site.example', '::1'],
      lifetimeDays: 100 * 365,
    },
    nowMs,
  )
  const parsed = new X509Certificate(cert)
  const issuer = new X509Certificate(authority.cert)
  assert.equal(parsed.subject, `CN=nbd-client:${'a'.repeat(32)}:${'b'.repeat(32)}`)
  assert.equal(parsed.checkIP('10.1.2.3'), '10.1.2.3')
  assert.equal(parsed.checkHost('site.example'), 'site.example')
  assert.equal(parsed.verify(issuer.publicKey), true)
  assert.equal(parsed.ca, false)
  assert.equal(issuer.ca, true)
  assert.equal(parsed.validTo, issuer.validTo)
  assert.match(key, /^-----BEGIN PRIVATE KEY-----/)
})

test('renewal is due in the last third of a life, or when a host is missing', async () => {
  const nowMs = Date.now()
  const authority = await createAuthority('Holdfast test authority', nowMs)
  const { cert } = await issueCertificate(
    authority,
    { identity: { kind: 'control', region: 'r' }, hosts: ['10.0.0.1'], lifetimeDays: 90 },
    nowMs,
  )
  assert.equal(renewalDue(cert, ['10.0.0.1'], nowMs + 50 * DAY_MS), false)
  assert.equal(renewalDue(cert, ['10.0.0.1'], nowMs + 65 * DAY_MS), true)
  assert.equal(renewalDue(cert, ['10.0.0.1', '10.0.0.2'], nowMs), true)
})
