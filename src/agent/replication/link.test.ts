import assert from 'node:assert/strict'
import { describe, test, type TestContext } from 'node:test'
import { createLog } from '#base/log.ts'
import { createAuthority, issueCertificate } from '#base/system/pki.ts'
import { FEATURES, FEATURES_HERE, type Hello } from '#wire/link/messages.ts'
import { dialLink, DialledBuffer, type LinkSecurity, listenForLinks } from './link.ts'
import { replicaHello } from './session/session-side.ts'
import { unopened } from './session/session.ts'

const keyed = (secret: string): LinkSecurity => ({ kind: 'keyed', secret: Buffer.from(secret) })

const helloOf = (site: string, features = FEATURES_HERE): Hello => ({
  kind: 'hello',
  features,
  site,
  ...replicaHello(unopened('s').record, { role: 'none' }),
  bootId: 'boot',
  runId: 'run',
  members: [],
})

interface Ends {
  readonly listener?: LinkSecurity
  readonly dialler?: LinkSecurity
  /** Said by the one who listens, and by the one who dials. */
  readonly answer?: Hello
  readonly hello?: Hello
}

/** az2 dials where az1 should answer. Rejects when the dialler does not get a link; else who was let in. */
async function meet(t: TestContext, ends: Ends): Promise<string[]> {
  const { listener: listens = keyed('k'), dialler = listens } = ends
  const accepted: string[] = []
  const listener = await listenForLinks({
    host: '127.0.0.1',
    port: 0,
    security: listens,
    log: createLog('test', 'silent'),
    answer: () => ends.answer ?? helloOf('az1'),
    accepted: ({ hello }) => void accepted.push(hello.site),
  })
  t.after(() => listener.close())
  try {
    const link = await dialLink({
      host: '127.0.0.1',
      port: listener.address.port,
      security: dialler,
      hello: ends.hello ?? helloOf('az2'),
      peerSite: 'az1',
      bufferBytes: 1024 * 1024,
      signal: new AbortController().signal,
    })
    assert.ok('socket' in link)
    link.socket.destroy()
  } catch (error) {
    // The writer's end never had a replica whose handshake did not come to its end.
    if (ends.answer === undefined) assert.deepEqual(accepted, [])
    throw error
  }
  return accepted
}

describe('a link', () => {
  test('comes about between two that know the same key', async (t) => {
    assert.deepEqual(await meet(t, {}), ['az2'])
  })

  test('is refused to who does not know the key', async (t) => {
    await assert.rejects(meet(t, { dialler: keyed('another') }))
  })

  test('is not taken from another site than the one that is the writer', async (t) => {
    await assert.rejects(meet(t, { answer: helloOf('az3') }), /site az3 answered/)
  })

  test('needs what this version cannot do without, on both sides', async (t) => {
    const lacking = FEATURES_HERE & ~FEATURES.ZERO
    await assert.rejects(meet(t, { answer: helloOf('az1', lacking) }), /lacks a feature/)
    await assert.rejects(meet(t, { hello: helloOf('az2', lacking) }))
    assert.deepEqual(await meet(t, { hello: helloOf('az2', FEATURES_HERE & ~FEATURES.CHANGES) }), [
      'az2',
    ])
  })

  test('over TLS is one of the two sites that the certificates name, whatever the hellos say', async (t) => {
    const nowMs = Date.now()
    const authority = await createAuthority('test', nowMs)
    const tlsOf = async (site: string): Promise<LinkSecurity> => {
      const identity = { kind: 'agent', site, agent: `${site}-agent` } as const
      const subject = { identity, hosts: ['127.0.0.1'], lifetimeDays: 1 }
      const { cert, key } = await issueCertificate(authority, subject, nowMs)
      return { kind: 'tls', tls: { cert, key, ca: authority.cert } }
    }
    const [az1, az2, az3] = await Promise.all(['az1', 'az2', 'az3'].map(tlsOf))
    assert.ok(az1 !== undefined && az2 !== undefined && az3 !== undefined)
    assert.deepEqual(await meet(t, { listener: az1, dialler: az2 }), ['az2'])
    await assert.rejects(meet(t, { listener: az3, dialler: az2 }), /not of site az1/)
    await assert.rejects(meet(t, { listener: az1, dialler: az3 }))
  })
})

test('the memory of a link keeps the order of what arrives, also when what is left has to be moved to its front', () => {
  const buffer = new DialledBuffer(256 * 1024)
  const sent = Buffer.from(Array.from({ length: 1024 * 1024 }, (_, i) => i * 7 + (i >> 9)))
  const taken: Buffer[] = []
  buffer.onBytes = () => {
    // Frames of an odd length, which never end where a read does.
    while (buffer.filled - buffer.start >= 3_001) {
      taken.push(Buffer.from(buffer.bytes.subarray(buffer.start, buffer.start + 3_001)))
      buffer.start += 3_001
    }
    return true
  }
  for (let at = 0; at < sent.length; ) {
    const place = buffer.room()
    const count = Math.min(place.length, 40_000, sent.length - at)
    sent.copy(place, 0, at, at + count)
    buffer.added(count, place)
    at += count
  }
  const all = Buffer.concat(taken)
  assert.ok(sent.length - all.length < 3_001)
  assert.ok(all.equals(sent.subarray(0, all.length)))
})
