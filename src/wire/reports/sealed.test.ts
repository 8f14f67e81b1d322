import assert from 'node:assert/strict'
import { generateKeyPairSync, sign } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { type Canonical, canonicalText } from './canonical.ts'
import type { DrillReport } from './drill-report.ts'
import {
  chainProblems,
  GENESIS,
  hashOf,
  keyId,
  openReport,
  readPublicKeys,
  type SealedReport,
  seal,
} from './sealed.ts'

const own = generateKeyPairSync('ed25519')
const foreign = generateKeyPairSync('ed25519')

const reportOf = (over: Partial<DrillReport> = {}): DrillReport => ({
  ordinal: 1,
  previous: GENESIS,
  made_at: 1_700_000_000_000,
  stage: 'ready',
  drill: {
    id: 'd',
    name: 'Übung "eins"',
    project: 'p',
    user: 'u',
    schedule: null,
    requested_at: 1_699_999_990_000,
    began_at: 1_699_999_990_010,
  },
  group: {
    id: 'g',
    name: 'shop',
    status: 'protected',
    production_site: 'az1',
    dr_site: 'az2',
    disks: [{ pair: 'r', source: 's', clone: 'c', size_gb: 10 }],
  },
  moment: null,
  data_age_ms: 0,
  data_age_basis: 'in_sync',
  production_stall_ms: 3,
  plan: null,
  steps: [{ name: 'snapshot', started_at: 1_699_999_990_100, ms: 12 }],
  servers: [
    {
      instance: 'i',
      server: 'v',
      name: 'web',
      flavor: 't2.micro',
      addresses: ['192.168.0.7'],
      state: 'ready',
      reason: null,
      started_at: 1_699_999_991_000,
      probes: [
        {
          probe: { kind: 'tcp', port: 80 },
          ok: true,
          detail: 'connection accepted',
          since_start_ms: 4_000,
          after_begin_ms: 5_000,
        },
      ],
    },
  ],
  recovery_time_ms: 5_000,
  result: 'passed',
  failure: null,
  teardown: null,
  ...over,
})

function sealed(report: DrillReport, keys = own): Buffer {
  const made = seal(report, keyId(keys.publicKey), (bytes) => sign(null, bytes, keys.privateKey))
  return Buffer.from(made.text)
}

function opened(bytes: Buffer): SealedReport {
  const found = openReport(bytes, [own.publicKey])
  assert.ok(found.ok, JSON.stringify(found))
  return found.sealed
}

const problem = (bytes: Buffer): string => {
  const found = openReport(bytes, [own.publicKey])
  assert.ok(!found.ok, 'it was taken')
  return found.problem
}

test('a report is read again as it was sealed', () => {
  assert.deepEqual(opened(sealed(reportOf())).report, reportOf())
  const pem = String(own.publicKey.export({ type: 'spki', format: 'pem' }))
  const [key] = readPublicKeys(`some words\n${pem}${pem}`)
  assert.equal(key && keyId(key), keyId(own.publicKey))
})

test('no byte of the file can be changed, taken away or added', () => {
  const bytes = sealed(reportOf())
  for (const at of bytes.keys()) {
    for (const bit of [0x01, 0x20]) {
      const bent = Buffer.from(bytes)
      bent[at] = (bytes[at] ?? 0) ^ bit
      problem(bent)
    }
    problem(Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1)]))
    problem(Buffer.concat([bytes.subarray(0, at), Buffer.from(' '), bytes.subarray(at)]))
  }
  problem(bytes.subarray(0, 100))
  problem(Buffer.alloc(0))
  // The last character of a signature has four bits that nobody decodes.
  const last = bytes.indexOf('==')
  for (let byte = 0; byte < 256; byte++) {
    if (byte === bytes[last - 1]) continue
    const bent = Buffer.from(bytes)
    bent[last - 1] = byte
    problem(bent)
  }
})

test('what was altered or forged is told', () => {
  const text = sealed(reportOf()).toString()
  const altered = Buffer.from(text.replace('"probes_failed"', '').replace('"passed"', '"failed"'))
  assert.match(problem(altered), /its content was altered/)
  const healed = Buffer.from(
    altered.toString().replace(hashOf(reportOf()), hashOf(reportOf({ result: 'failed' }))),
  )
  assert.match(problem(healed), /its signature is wrong/)
  assert.match(problem(sealed(reportOf(), foreign)), /which is none of those that you trust/)
  const impostor = Buffer.from(
    sealed(reportOf(), foreign).toString().replace(keyId(foreign.publicKey), keyId(own.publicKey)),
  )
  assert.match(problem(impostor), /its signature is wrong/)
  assert.match(problem(Buffer.from(text.replace('{', '{ '))), /the form of the file/)
  assert.match(problem(Buffer.from(text.replace('"version":2', '"version":3'))), /form of a report/)
  const more = Buffer.from(text.replace('"stage"', '"note":"hi","stage"'))
  assert.match(problem(more), /form of a report/)
})

test('a file of version 1 is read for ever, and neither version passes for the other', () => {
  const bytes = readFileSync(join(import.meta.dirname, 'drill-report-1.fixture'))
  const [key] = readPublicKeys(
    readFileSync(join(import.meta.dirname, 'report-key-1.fixture.pem'), 'utf8'),
  )
  assert.ok(key !== undefined)
  const found = openReport(bytes, [key])
  assert.ok(found.ok, JSON.stringify(found))
  assert.deepEqual([found.sealed.version, found.sealed.report.result], [1, 'passed'])
  const text = bytes.toString()
  const renamed = openReport(Buffer.from(text.replace('"version":1', '"version":2')), [key])
  assert.ok(!renamed.ok)
  const { hash } = found.sealed
  const next = opened(sealed(reportOf({ ordinal: 2, previous: hash })))
  assert.deepEqual(chainProblems([found.sealed, next]), [], 'the chain goes on')
})

test('reports that follow each other are a chain, and a missing or replaced link shows', () => {
  const first = reportOf()
  const second = reportOf({ ordinal: 2, previous: hashOf(first), stage: 'ended' })
  const third = reportOf({ ordinal: 3, previous: hashOf(second) })
  const of = (...reports: DrillReport[]) => chainProblems(reports.map((one) => opened(sealed(one))))
  assert.deepEqual(of(third, first, second), [])
  assert.deepEqual(of(first, third), [], 'one that was not given is no break')
  const other = reportOf({ ordinal: 2, previous: hashOf(first), stage: 'failed' })
  assert.match(of(first, other, third).join(), /report 3 names/)
  assert.match(of(first, second, other).join(), /there are two reports 2/)
  assert.match(of(reportOf({ previous: 'a'.repeat(64) })).join(), /report 1 names one before it/)
})

test('one value has one text, and what has none is refused', () => {
  const { value } = fc.letrec<{ value: Canonical }>((tie) => ({
    value: fc.oneof(
      { depthSize: 'small' },
      fc.constant(null),
      fc.boolean(),
      fc.maxSafeInteger(),
      fc.string({ unit: 'grapheme' }),
      fc.array(tie('value')),
      fc.dictionary(fc.string({ unit: 'grapheme' }), tie('value')),
    ),
  }))
  fc.assert(
    fc.property(value, (one) => {
      const text = canonicalText(one)
      assert.equal(canonicalText(JSON.parse(text) as Canonical), text)
    }),
  )
  assert.equal(canonicalText({ b: 1, a: [true, null, 'é'] }), '{"a":[true,null,"é"],"b":1}')
  for (const one of [1.5, Number.NaN, 2 ** 53, '\ud800']) {
    assert.throws(() => canonicalText(one), TypeError)
  }
})
