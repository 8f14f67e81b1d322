import assert from 'node:assert/strict'
import { test } from 'node:test'
import { INFO, OPT, REP, TRANSMISSION } from '#wire/nbd/constants.ts'
import {
  decodeInfo,
  decodeOptionReplyHeader,
  encodeExportRequest,
  encodeMetaContextRequest,
  OPTION_REPLY_HEADER_BYTES,
} from '#wire/nbd/handshake.ts'
import type { Device } from './device.ts'
import { ExportTable } from './exports.ts'
import { type Answer, Negotiation } from './negotiation.ts'

const device: Device = { sizeBytes: 12_345, submit() {} }

function table(): ExportTable {
  const exports = new ExportTable()
  exports.serve('vol', device)
  exports.refuse('gone', 'the group is written at az2')
  return exports
}

function start(tls: 'none' | 'required' = 'none', exports = table()): Negotiation {
  return new Negotiation(
    { tls, open: (name) => exports.open(name), names: () => exports.names() },
    { noZeroes: true },
  )
}

const ask = (negotiation: Negotiation, option: number, data: Buffer = Buffer.alloc(0)) =>
  negotiation.answer({ option, length: data.length }, data)

/** The option replies in an answer, as [type, data]. */
function replies(answer: Answer): [number, Buffer][] {
  const found: [number, Buffer][] = []
  for (let { bytes } = answer; bytes.length > 0; ) {
    const header = decodeOptionReplyHeader(bytes.subarray(0, OPTION_REPLY_HEADER_BYTES))
    assert.ok(header)
    const end = OPTION_REPLY_HEADER_BYTES + header.length
    found.push([header.type, bytes.subarray(OPTION_REPLY_HEADER_BYTES, end)])
    bytes = bytes.subarray(end)
  }
  return found
}

const types = (answer: Answer) => replies(answer).map(([type]) => type)
const go = (name: string, infos: number[] = []) => encodeExportRequest({ name, infos })

test('GO tells size, flags and block sizes and begins the transmission', () => {
  const answer = ask(start(), OPT.GO, go('vol'))
  assert.equal(answer.next, 'serve')
  const infos = replies(answer).slice(0, -1)
  assert.deepEqual(decodeInfo(infos[0]?.[1] ?? Buffer.alloc(0)), {
    kind: 'export',
    sizeBytes: 12_345,
    flags:
      TRANSMISSION.HAS_FLAGS |
      TRANSMISSION.SEND_FLUSH |
      TRANSMISSION.SEND_FUA |
      TRANSMISSION.SEND_TRIM |
      TRANSMISSION.SEND_WRITE_ZEROES |
      TRANSMISSION.CAN_MULTI_CONN,
  })
  assert.deepEqual(decodeInfo(infos[1]?.[1] ?? Buffer.alloc(0)), {
    kind: 'block_size',
    minimum: 1,
    preferred: 4096,
    maximum: 33_554_432,
  })
  assert.equal(types(answer).at(-1), REP.ACK)
})

test('INFO answers the same and the negotiation goes on', () => {
  const negotiation = start()
  const answer = ask(negotiation, OPT.INFO, go('vol', [INFO.NAME]))
  assert.equal(answer.next, 'option')
  assert.deepEqual(types(answer), [REP.INFO, REP.INFO, REP.INFO, REP.ACK])
  assert.equal(ask(negotiation, OPT.GO, go('vol')).next, 'serve')
})

test('an unknown export and one without authority are refused with different codes and a reason', () => {
  const [unknown] = replies(ask(start(), OPT.GO, go('nope')))
  assert.equal(unknown?.[0], REP.ERR_UNKNOWN)
  const [refused] = replies(ask(start(), OPT.GO, go('gone')))
  assert.equal(refused?.[0], REP.ERR_POLICY)
  assert.equal(refused?.[1].toString(), 'the group is written at az2')
})

test('LIST names what can be opened', () => {
  const answer = ask(start(), OPT.LIST)
  assert.deepEqual(types(answer), [REP.SERVER, REP.ACK])
  assert.equal(replies(answer)[0]?.[1].subarray(4).toString(), 'vol')
})

test('an unknown option is refused and the negotiation goes on', () => {
  for (const option of [0, OPT.PEEK_EXPORT, OPT.EXTENDED_HEADERS, 4_000_000_000]) {
    const answer = ask(start(), option, Buffer.from('data'))
    assert.equal(answer.next, 'option')
    assert.deepEqual(types(answer), [REP.ERR_UNSUP])
  }
})

test('malformed data of any option is refused as invalid', () => {
  const junk = Buffer.from([1, 2, 3])
  for (const option of [OPT.LIST, OPT.STARTTLS, OPT.INFO, OPT.GO, OPT.STRUCTURED_REPLY]) {
    assert.deepEqual(types(ask(start(), option, junk)), [REP.ERR_INVALID])
  }
  assert.deepEqual(types(ask(start(), OPT.SET_META_CONTEXT, junk)), [REP.ERR_INVALID])
})

test('EXPORT_NAME hangs up on what it cannot serve', () => {
  assert.equal(ask(start(), OPT.EXPORT_NAME, Buffer.from('vol')).next, 'serve')
  assert.equal(ask(start(), OPT.EXPORT_NAME, Buffer.from('gone')).next, 'close')
})

test('ABORT is acknowledged', () => {
  const answer = ask(start(), OPT.ABORT)
  assert.equal(answer.next, 'close')
  assert.deepEqual(types(answer), [REP.ACK])
})

const context = (name: string, ...queries: string[]) => encodeMetaContextRequest({ name, queries })

test('base:allocation needs structured replies and belongs to the export it was selected for', () => {
  const exports = table()
  exports.serve('other', device)
  const negotiation = start('none', exports)
  const select = () => ask(negotiation, OPT.SET_META_CONTEXT, context('vol', 'base:allocation'))
  assert.deepEqual(types(select()), [REP.ERR_INVALID])
  ask(negotiation, OPT.STRUCTURED_REPLY)
  assert.deepEqual(types(select()), [REP.META_CONTEXT, REP.ACK])
  const other = ask(negotiation, OPT.GO, go('other'))
  assert.ok(other.next === 'serve' && other.agreement.structured && !other.agreement.allocation)
  const own = ask(negotiation, OPT.GO, go('vol'))
  assert.ok(own.next === 'serve' && own.agreement.allocation)
})

test('a later selection replaces the earlier one, also by nothing', () => {
  const negotiation = start()
  ask(negotiation, OPT.STRUCTURED_REPLY)
  ask(negotiation, OPT.SET_META_CONTEXT, context('vol', 'base:allocation'))
  assert.deepEqual(types(ask(negotiation, OPT.SET_META_CONTEXT, context('vol', 'qemu:x'))), [
    REP.ACK,
  ])
  const answer = ask(negotiation, OPT.GO, go('vol'))
  assert.ok(answer.next === 'serve' && !answer.agreement.allocation)
})

test('listing contexts selects nothing', () => {
  const negotiation = start()
  ask(negotiation, OPT.STRUCTURED_REPLY)
  const answer = ask(negotiation, OPT.LIST_META_CONTEXT, context('vol'))
  assert.deepEqual(types(answer), [REP.META_CONTEXT, REP.ACK])
  assert.equal(replies(answer)[0]?.[1].readUInt32BE(0), 0)
  const opened = ask(negotiation, OPT.GO, go('vol'))
  assert.ok(opened.next === 'serve' && !opened.agreement.allocation)
})

test('where TLS is required nothing is answered before it', () => {
  const negotiation = start('required')
  for (const option of [OPT.LIST, OPT.GO, OPT.INFO, OPT.STRUCTURED_REPLY, 99]) {
    assert.deepEqual(types(ask(negotiation, option, go('vol'))), [REP.ERR_TLS_REQD])
  }
  assert.equal(ask(negotiation, OPT.EXPORT_NAME, Buffer.from('vol')).next, 'close')
  assert.equal(ask(negotiation, OPT.STARTTLS).next, 'tls')
  negotiation.becameSecure()
  assert.deepEqual(types(ask(negotiation, OPT.STARTTLS)), [REP.ERR_INVALID])
  assert.equal(ask(negotiation, OPT.GO, go('vol')).next, 'serve')
})

test('where TLS is not offered STARTTLS is refused by policy', () => {
  assert.deepEqual(types(ask(start(), OPT.STARTTLS)), [REP.ERR_POLICY])
})
