/** Who comes to the door of replicas without a right, or says what makes no sense. */
import assert from 'node:assert/strict'
import { randomBytes, randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { systemClock } from '#base/system/clock.ts'
import { createAuthority, issueCertificate } from '#base/system/pki.ts'
import { createSealer } from '#vault/format/record.ts'
import { encodeHave, encodePut, type OpenTransfer } from '#wire/replica/messages.ts'
import { BackupWorld, restoredImage } from './backups.contract.ts'
import { makeTicket, readTicket } from './tickets.ts'

const BLOCK = 64 * 1024

let directory = ''
let world: BackupWorld
let tls: { ca: string; cert: string; key: string }

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'holdfast-door-'))
  const nowMs = systemClock.wallMs()
  const authority = await createAuthority('test', nowMs)
  const identity = { kind: 'agent', site: 'az1', agent: 'az1-agent' } as const
  const part = await issueCertificate(
    authority,
    { identity, hosts: ['127.0.0.1'], lifetimeDays: 2 },
    nowMs,
  )
  tls = { ca: authority.cert, ...part }
  world = await BackupWorld.open(directory, { tls })
})
after(async () => {
  await world.stop()
  await rm(directory, { recursive: true, force: true })
})

interface Answer {
  readonly status: number
  readonly body: Record<string, unknown>
}

function post(
  url: string,
  name: string,
  body: Buffer | object,
  headers: Record<string, string>,
): Promise<Answer> {
  const bytes = Buffer.isBuffer(body) ? body : Buffer.from(JSON.stringify(body))
  return new Promise((resolve, reject) => {
    const sent = request(
      `${url}/replica/v1/${name}`,
      { method: 'POST', ca: tls.ca, headers: { ...headers, 'content-length': bytes.length } },
      (response) => {
        const parts: Buffer[] = []
        response.on('data', (part: Buffer) => parts.push(part))
        response.on('error', reject)
        response.on('end', () => {
          const text = Buffer.concat(parts).toString('latin1')
          const isJson = text.startsWith('{')
          resolve({
            status: response.statusCode ?? 0,
            body: isJson ? (JSON.parse(text) as Record<string, unknown>) : { bytes: text },
          })
        })
      },
    )
    sent.on('error', reject)
    sent.end(bytes)
  })
}

function opening(replica: string, more: Partial<OpenTransfer> = {}): OpenTransfer {
  return {
    version: 1,
    replica,
    vault: randomUUID(),
    checkpoint: randomUUID(),
    block_bytes: BLOCK,
    created_ms: 1_000_000,
    labels: { owner: 'source', server: 'db1' },
    volumes: [{ id: 'data', size_bytes: 2 * BLOCK + 512 }],
    data_key: {
      id: randomBytes(16).toString('hex'),
      secret: randomBytes(32).toString('base64'),
      naming: randomBytes(32).toString('base64'),
      generation: 1,
      origin: randomUUID(),
    },
    base: null,
    ...more,
  }
}

async function admitted(replica: string) {
  const { target, expires_at } = await world.command('replica.admit', {
    replica,
    labels: { owner: 'destination' },
  })
  return {
    url: target.url,
    ticket: target.ticket,
    expires_at,
    authorization: { authorization: `Holdfast-Replica ${target.ticket}` },
  }
}

test('without a good ticket nothing is opened, and the refusal does not repeat it', async () => {
  const replica = randomUUID()
  const { url, ticket, authorization } = await admitted(replica)
  const wrong = [
    {},
    { authorization: ticket },
    { authorization: `Holdfast-Replica ${ticket}x` },
    { authorization: `Holdfast-Replica x${ticket}` },
    { authorization: 'Holdfast-Replica .' },
  ]
  for (const headers of wrong) {
    const answer = await post(url, 'open', opening(replica), headers as Record<string, string>)
    assert.deepEqual([answer.status, answer.body['code']], [401, 'TICKET_REFUSED'])
    assert.ok(!JSON.stringify(answer.body).includes(ticket.slice(0, 20)))
  }
  const other = await post(url, 'open', opening(randomUUID()), authorization)
  assert.equal(other.status, 401)
})

test('a ticket ends by itself, and is bound to its labels', () => {
  const key = randomBytes(32)
  const ticket = makeTicket(key, { replica: 'r', labels: { owner: 'me' }, expiresMs: 1000 })
  assert.deepEqual(readTicket(key, ticket, 999)?.labels, { owner: 'me' })
  assert.equal(readTicket(key, ticket, 1000), undefined)
  assert.equal(readTicket(randomBytes(32), ticket, 999), undefined)
  const [, proof] = ticket.split('.')
  const other = makeTicket(key, { replica: 'r', labels: { owner: 'you' }, expiresMs: 1000 })
  assert.equal(readTicket(key, `${other.split('.')[0]}.${proof}`, 999), undefined)
})

test('what is malformed, too large or of another transfer is refused by its kind', async () => {
  const replica = randomUUID()
  const { url, authorization } = await admitted(replica)
  const malformed = await post(url, 'open', { version: 2 }, authorization)
  assert.equal(malformed.status, 400)
  assert.equal((await post(url, 'open', Buffer.alloc(300_000, 0x20), authorization)).status, 413)
  assert.equal((await post(url, 'have', encodeHave(0, []), {})).status, 410)
  const wrong = opening(replica, { block_bytes: 4096 })
  assert.equal((await post(url, 'open', wrong, authorization)).body['code'], 'BLOCK_SIZE')

  const message = opening(replica)
  const opened = await post(url, 'open', message, authorization)
  assert.equal(opened.body['state'], 'open')
  const transfer = { 'x-holdfast-transfer': String(opened.body['transfer']) }
  assert.equal((await post(url, 'have', Buffer.from('nonsense'), transfer)).status, 400)
  assert.equal((await post(url, 'put', Buffer.from('nonsense'), transfer)).status, 400)
  const outside = encodeHave(0, [{ block: 3, id: randomBytes(32) }])
  assert.equal((await post(url, 'have', outside, transfer)).body['code'], 'WRONG_BLOCK')
  const unknown = encodeHave(1, [{ block: 0, id: randomBytes(32) }])
  assert.equal((await post(url, 'have', unknown, transfer)).body['code'], 'WRONG_VOLUME')
  assert.equal((await post(url, 'finish', {}, transfer)).body['code'], 'VOLUMES_MISSING')
  const record = {
    kind: 'record',
    block: 0,
    id: randomBytes(32),
    key: 0,
    flags: 0,
    bytes: randomBytes(1000),
  } as const
  const forged = encodePut({ volume: 0, keys: [randomBytes(32)], items: [record] })
  const answer = await post(url, 'put', forged, transfer)
  assert.deepEqual([answer.status, answer.body['code']], [422, 'RECORD_DAMAGED'])
  assert.equal(answer.body['text'], record.id.toString('hex'))
  // Opened again: the token of before is worth nothing.
  const again = await post(url, 'open', message, authorization)
  assert.equal(again.body['session'], opened.body['session'])
  assert.equal((await post(url, 'volume', { volume: 0 }, transfer)).status, 410)
  // Opened for something else, as with another base or without one: what had come is no part of it.
  const other = { ...message, checkpoint: randomUUID() }
  const anew = await post(url, 'open', other, authorization)
  assert.notEqual(anew.body['session'], opened.body['session'])
  const now = { 'x-holdfast-transfer': String(anew.body['transfer']) }
  assert.equal((await post(url, 'end', {}, now)).status, 200)
})

test('a key that would pass for the own one of this vault, or for another, is refused', async () => {
  const { id } = (await world.vault()).header
  const own = (await world.vault()).dataKeys().find(({ origin }) => origin === id)
  assert.ok(own)
  const replica = randomUUID()
  const { url, authorization } = await admitted(replica)
  const message = opening(replica)
  const ours = { ...message, data_key: { ...message.data_key, origin: id, generation: 99 } }
  assert.equal((await post(url, 'open', ours, authorization)).body['code'], 'KEY_REFUSED')
  const taken = {
    ...message,
    data_key: { ...message.data_key, id: own.id.toString('hex') },
  }
  assert.equal((await post(url, 'open', taken, authorization)).body['code'], 'KEY_REFUSED')
  const all = (await world.vault()).dataKeys()
  assert.ok(all.every((key) => key.origin !== id || key.id.equals(own.id)))
})

test('keys are taken over as many as a replica may bring, and blocks wait for records as many as may', async () => {
  const replica = randomUUID()
  const { url, authorization } = await admitted(replica)
  const message = opening(replica)
  const withKey = () => ({ ...message.data_key, id: randomBytes(16).toString('hex') })
  for (let i = 0; i < 4; i++) {
    const more = { ...message, data_key: withKey() }
    assert.equal((await post(url, 'open', more, authorization)).status, 200)
  }
  const keys = (await world.vault()).dataKeys().length
  const fifth = await post(url, 'open', { ...message, data_key: withKey() }, authorization)
  assert.equal(fifth.body['code'], 'KEY_REFUSED')
  assert.equal((await world.vault()).dataKeys().length, keys)

  const large = randomUUID()
  const door = await admitted(large)
  const volumes = [{ id: 'data', size_bytes: 2 ** 20 * BLOCK }]
  const opened = await post(url, 'open', opening(large, { volumes }), door.authorization)
  const transfer = { 'x-holdfast-transfer': String(opened.body['transfer']) }
  const id = randomBytes(32)
  const statuses: number[] = []
  for (let group = 0; group < 65; group++) {
    const blocks = Array.from({ length: 1024 }, (_, i) => ({ block: group * 1024 + i, id }))
    statuses.push((await post(url, 'have', encodeHave(0, blocks), transfer)).status)
  }
  assert.deepEqual(statuses, [...Array<number>(64).fill(200), 503])
  assert.equal((await post(url, 'end', {}, transfer)).status, 200)
})

test('a ticket whose labels do not fit is not made, and one that is too long is not read', async () => {
  const labels = Object.fromEntries([1, 2, 3, 4].map((n) => [`l${n}`, 'x'.repeat(1000)]))
  await assert.rejects(
    world.command('replica.admit', { replica: randomUUID(), labels }),
    /TICKET_TOO_LARGE/,
  )
  assert.equal(readTicket(randomBytes(32), `${'A'.repeat(4096)}.A`, 0), undefined)
})

test('a record goes to every block that waits for its name, and the checkpoint has the labels of the ticket', async () => {
  const replica = randomUUID()
  const { url, authorization } = await admitted(replica)
  const message = opening(replica)
  const opened = await post(url, 'open', message, authorization)
  const transfer = { 'x-holdfast-transfer': String(opened.body['transfer']) }
  const content = Buffer.alloc(BLOCK, 'content')
  const id = randomBytes(32)
  const blocks = [0, 1].map((block) => ({ block, id }))
  const wanted = await post(url, 'have', encodeHave(0, blocks), transfer)
  // Once, though two blocks have it.
  assert.equal(wanted.body['bytes'], '\x80')
  assert.equal((await post(url, 'volume', { volume: 0 }, transfer)).body['code'], 'RECORDS_MISSING')
  const key = randomBytes(32)
  const sealed = createSealer(key, 1, 1).seal(id, content, 0)
  const bytes = Buffer.concat(sealed.bytes)
  const record = { kind: 'record', block: 0, id, key: 0, flags: sealed.flags, bytes } as const
  const put = encodePut({ volume: 0, keys: [key], items: [record] })
  assert.equal((await post(url, 'put', put, transfer)).status, 200)
  assert.equal((await post(url, 'volume', { volume: 0 }, transfer)).status, 200)
  const finished = await post(url, 'finish', {}, transfer)
  assert.equal(finished.body['arrived_bytes'], bytes.length)
  const vault = await world.vault()
  const checkpoint = String(finished.body['checkpoint'])
  const { manifest } = await vault.checkpoint(checkpoint)
  assert.deepEqual(manifest.labels, {
    owner: 'destination',
    server: 'db1',
    replica_of: `${message.vault}/${message.checkpoint}`,
  })
  assert.equal(manifest.createdMs, 1_000_000)
  const image = await restoredImage(vault, checkpoint, 'data')
  assert.ok(image.equals(Buffer.concat([content, content, Buffer.alloc(512)])))
  // Whoever did not hear that asks again.
  const again = await post(url, 'open', message, authorization)
  assert.deepEqual(again.body, { state: 'done', checkpoint })

  // What comes next builds on it, until it is deleted.
  const next = () => {
    const base = { checkpoint: message.checkpoint, replica_checkpoint: checkpoint }
    return opening(randomUUID(), { vault: message.vault, data_key: message.data_key, base })
  }
  const ends = async (later: OpenTransfer) => {
    const door = await admitted(later.replica)
    const answer = await post(url, 'open', later, door.authorization)
    const token = { 'x-holdfast-transfer': String(answer.body['transfer']) }
    assert.equal((await post(url, 'end', {}, token)).status, 200)
    return answer.body['based']
  }
  assert.equal(await ends(next()), true)
  await world.command('vault.forget', { checkpoint })
  assert.equal(await ends(next()), false)
})

test('a transfer that the vault has failed is over, and the next attempt gets another one', async () => {
  const replica = randomUUID()
  const { url, authorization } = await admitted(replica)
  const message = opening(replica, { volumes: [] })
  const opened = await post(url, 'open', message, authorization)
  const transfer = { 'x-holdfast-transfer': String(opened.body['transfer']) }
  // As a collector does with a session that it takes for dead.
  await (await world.vault()).revoke(String(opened.body['session']))
  const finished = await post(url, 'finish', {}, transfer)
  assert.deepEqual([finished.status, finished.body['code']], [503, 'TRANSFER_BUSY'])
  assert.equal((await post(url, 'finish', {}, transfer)).status, 410)
  const anew = await post(url, 'open', message, authorization)
  assert.notEqual(anew.body['session'], opened.body['session'])
  const token = { 'x-holdfast-transfer': String(anew.body['transfer']) }
  assert.equal((await post(url, 'finish', {}, token)).status, 200)
})
