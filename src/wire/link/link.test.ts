import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import {
  ACK,
  ACK_BYTES,
  ack,
  AckHeader,
  FRAME,
  FRAME_BYTES,
  FRAME_LENGTH_MAX,
  frame,
  FrameHeader,
  type FrameType,
  STATUS,
  type Status,
} from './frame.ts'
import { decodePreface, encodePreface, linkKey, LINK_VERSION, proof } from './handshake.ts'
import { decodeHello, decodeMessage, encodeMessage, type LinkMessage } from './messages.ts'
import { NONCE_BYTES, PREFACE_BYTES, proves } from './opening.ts'

const safe = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER })

describe('frames of the link', () => {
  test('every header reads back as it was written', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...Object.values(FRAME)),
        fc.integer({ min: 0, max: 255 }),
        fc.integer({ min: 0, max: 0xffff_ffff }),
        safe,
        fc.integer({ min: 0, max: 2 ** 52 }),
        fc.integer({ min: 0, max: FRAME_LENGTH_MAX }),
        (type: FrameType, flags, volume, seq, offset, length) => {
          const header = new FrameHeader()
          const bytes = frame(type, flags, volume, seq, offset, length)
          assert.equal(bytes.length, FRAME_BYTES)
          assert.equal(header.read(bytes, 0), true)
          const read = [header.type, header.flags, header.volume, header.seq, header.offset]
          assert.deepEqual(read, [type, flags, volume, seq, offset])
          assert.equal(header.length, length)
        },
      ),
    )
  })

  test('every acknowledgement reads back as it was written', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...Object.values(ACK)),
        fc.constantFrom(...Object.values(STATUS)),
        safe,
        fc.uint8Array({ maxLength: 100 }),
        (type, status: Status, number, payload) => {
          const header = new AckHeader()
          const bytes = ack(type, status, number, payload)
          assert.equal(header.read(bytes, 0), true)
          assert.deepEqual([header.type, header.status, header.number], [type, status, number])
          assert.equal(header.length, payload.length)
          assert.deepEqual(new Uint8Array(bytes.subarray(ACK_BYTES)), payload)
        },
      ),
    )
  })

  test('no bytes at all make a reader throw, and a header it accepts is within limits', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 28, maxLength: 28 }), fc.boolean(), (raw, marked) => {
        const bytes = Buffer.from(raw)
        if (marked) bytes.writeUInt16BE(0x4846, 0)
        const header = new FrameHeader()
        if (header.read(bytes, 0)) {
          assert.ok(header.length <= FRAME_LENGTH_MAX)
          assert.ok(Number.isSafeInteger(header.offset + header.length))
        }
        if (marked) bytes.writeUInt16BE(0x4841, 0)
        new AckHeader().read(bytes, 0)
      }),
    )
  })

  test('the bytes of a frame are those of the format page', () => {
    assert.equal(
      frame(FRAME.WRITE, 1, 2, 3, 4096, 512).toString('hex'),
      '48460101000000020000000000000003000000000000100000000200',
    )
    assert.equal(
      ack(ACK.APPLIED, STATUS.OK, 258).toString('hex'),
      '48410100000000000000000000000102',
    )
  })
})

describe('messages of the link', () => {
  const record = {
    session: 's',
    epoch: 3,
    state: 'in_sync',
    writer: 'az1',
    replica: 'az2',
    mode: 'witness',
    preferred: 'az1',
  } as const

  test('messages read back as they were written', () => {
    const messages: LinkMessage[] = [
      { kind: 'refuse', code: 'STALE_EPOCH', text: 'no', record },
      { kind: 'copy_begin', sequence: 7 },
      { kind: 'rise', epoch: 4, members: [1, 2] },
      { kind: 'risen', epoch: 4 },
      { kind: 'epoch', record },
      { kind: 'epoch_accepted', epoch: 4 },
      { kind: 'join', member: 2 },
      { kind: 'joined', member: 2 },
    ]
    for (const message of messages) {
      assert.deepEqual(decodeMessage(encodeMessage(message)), message)
    }
  })

  test('what is not a message of this version is refused and does not throw', () => {
    for (const text of ['', '{', '[]', 'null', '{"kind":"copy_begin"}', '{"kind":"surprise"}']) {
      assert.equal(decodeMessage(Buffer.from(text)), undefined)
      assert.equal(decodeHello(Buffer.from(text)), undefined)
    }
    fc.assert(fc.property(fc.uint8Array(), (bytes) => decodeMessage(bytes) === undefined))
  })

  test('members unknown to this version are ignored', () => {
    const newer = Buffer.from('{"kind":"risen","epoch":4,"added_later":true}')
    assert.equal(decodeMessage(newer)?.kind, 'risen')
  })
})

describe('the preface and the proofs', () => {
  test('a preface reads back, and anything else is refused', () => {
    const nonce = randomBytes(NONCE_BYTES)
    const bytes = encodePreface({ version: LINK_VERSION, keyed: true, nonce })
    assert.deepEqual(decodePreface(bytes), { version: LINK_VERSION, keyed: true, nonce })
    assert.equal(decodePreface(Buffer.alloc(PREFACE_BYTES)), undefined)
    assert.equal(decodePreface(bytes.subarray(1)), undefined)
  })

  test('a proof holds for its key, side and nonces only', () => {
    const [a, b] = [randomBytes(32), randomBytes(32)]
    const key = linkKey(Buffer.from('secret'))
    const good = proof(key, 'dialler', a, b)
    assert.ok(proves(good, proof(key, 'dialler', a, b)))
    assert.ok(!proves(good, proof(linkKey(Buffer.from('other')), 'dialler', a, b)))
    assert.ok(!proves(good, proof(key, 'listener', a, b)))
    assert.ok(!proves(good, proof(key, 'dialler', b, a)))
    assert.ok(!proves(good, good.subarray(1)))
  })
})
