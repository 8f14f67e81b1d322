import { createHash, createPublicKey, type KeyObject, verify } from 'node:crypto'
import Type, { type Static } from 'typebox'
import { Value } from 'typebox/value'
import { type Canonical, canonicalText } from './canonical.ts'
import { DrillReport } from './drill-report.ts'
import { DrillReport1 } from './drill-report-1.ts'

/* The file that a report is handed out in, docs/formats/drill-report.md. Checked with nothing but the file and a public key.
 *
 *     file       canonical text of {format, version, report, hash, key, signature}, and a line feed
 *     hash       SHA-256 of the canonical text of `report`
 *     signature  Ed25519 over a line that names the version, and that canonical text
 *     key        which key signed: SHA-256 of its SubjectPublicKeyInfo, DER
 *
 * The file is compared with the canonical text of what it says, byte for byte: what is not covered by the signature is not there.
 */

export const REPORT_FORMAT = 'holdfast-drill-report'
/** The one that is written. Both are read. */
const REPORT_VERSION = 2
type Version = 1 | typeof REPORT_VERSION
/** `previous` of the first report of an installation. */
export const GENESIS = '0'.repeat(64)
/** A larger file is no report: 1,024 servers with sixteen probes each fit. */
export const REPORT_BYTES_MAX = 64 * 1024 * 1024

const Hash = Type.String({ pattern: '^[0-9a-f]{64}$' })
const Envelope = {
  format: Type.Literal(REPORT_FORMAT),
  hash: Hash,
  key: Hash,
  // Of the last character only two bits count: with any of the other 60 the file would be another and the signature the same.
  signature: Type.String({ pattern: '^[A-Za-z0-9+/]{85}[AQgw]==$' }),
}
const strict = { additionalProperties: false }
const Sealed1 = Type.Object({ ...Envelope, version: Type.Literal(1), report: DrillReport1 }, strict)
const Sealed2 = Type.Object({ ...Envelope, version: Type.Literal(2), report: DrillReport }, strict)
export const SealedReport = Type.Union([Sealed1, Sealed2])
export type SealedReport = Static<typeof SealedReport>
export type AnyReport = SealedReport['report']

/** What is signed. */
export const signedBytes = (report: AnyReport, version: Version): Buffer =>
  Buffer.from(`holdfast drill report ${version}\n${canonicalText(report as Canonical)}`)

export const hashOf = (report: AnyReport): string =>
  createHash('sha256')
    .update(canonicalText(report as Canonical))
    .digest('hex')

/** Names a public key. */
export const keyId = (key: KeyObject): string =>
  createHash('sha256')
    .update(key.export({ type: 'spki', format: 'der' }))
    .digest('hex')

/** The file's text. `sign` makes an Ed25519 signature with the key that `key` names. */
export function seal(
  report: DrillReport,
  key: string,
  sign: (bytes: Buffer) => Buffer,
): { readonly hash: string; readonly text: string } {
  const hash = hashOf(report)
  const signature = sign(signedBytes(report, REPORT_VERSION)).toString('base64')
  const sealed: SealedReport = {
    format: REPORT_FORMAT,
    version: REPORT_VERSION,
    report,
    hash,
    key,
    signature,
  }
  return { hash, text: `${canonicalText(sealed as Canonical)}\n` }
}

export type Opened =
  | { readonly ok: true; readonly sealed: SealedReport }
  /** One sentence without a full stop. */
  | { readonly ok: false; readonly problem: string }

const bad = (problem: string): Opened => ({ ok: false, problem })

const isOfVersion1 = (value: unknown): boolean =>
  typeof value === 'object' && value !== null && 'version' in value && value.version === 1

/** Whether the bytes are a report that one of the keys signed, unchanged. */
export function openReport(bytes: Buffer, keys: readonly KeyObject[]): Opened {
  if (bytes.length > REPORT_BYTES_MAX) return bad('it is larger than any report')
  const text = bytes.toString('utf8')
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return bad('it is no JSON: cut off, or not a report')
  }
  // The errors of a union say nothing of where they are.
  const form = isOfVersion1(value) ? Sealed1 : Sealed2
  if (!Value.Check(form, value)) {
    const [first] = Value.Errors(form, value)
    const where = first === undefined ? '' : ` at ${first.instancePath || '/'}: ${first.message}`
    return bad(`it is not of the form of a report${where}`)
  }
  const hash = hashOf(value.report)
  if (hash !== value.hash) {
    return bad(`its content was altered: its hash is ${hash}, and the file says ${value.hash}`)
  }
  const canonical = Buffer.from(`${canonicalText(value as Canonical)}\n`)
  if (!canonical.equals(bytes)) {
    return bad('its bytes are not those that were handed out: the form of the file was altered')
  }
  const key = keys.find((one) => keyId(one) === value.key)
  if (key === undefined) {
    return bad(`it was signed with key ${value.key}, which is none of those that you trust`)
  }
  const signed = signedBytes(value.report, value.version)
  const right = verify(null, signed, key, Buffer.from(value.signature, 'base64'))
  if (!right) return bad('its signature is wrong: it was altered, or forged')
  return { ok: true, sealed: value }
}

/** Of reports in the order of their ordinals: where the chain is broken, as sentences. */
export function chainProblems(reports: readonly SealedReport[]): string[] {
  const sorted = [...reports].sort((a, b) => a.report.ordinal - b.report.ordinal)
  return sorted.flatMap(({ report }, index) => {
    const before = sorted[index - 1]
    if (before?.report.ordinal === report.ordinal) {
      return before.hash === hashOf(report) ? [] : [`there are two reports ${report.ordinal}`]
    }
    if (report.ordinal === 1) {
      return report.previous === GENESIS ? [] : ['report 1 names one before it']
    }
    if (before === undefined || before.report.ordinal < report.ordinal - 1) return [] // not given
    if (report.previous === before.hash) return []
    return [
      `report ${report.ordinal} names ${report.previous} as the one before it, and report ${before.report.ordinal} is ${before.hash}`,
    ]
  })
}

/** Public keys of PEM text: one or several. Throws when one is none of Ed25519. */
export function readPublicKeys(pem: string): KeyObject[] {
  const blocks = pem.match(/-----BEGIN PUBLIC KEY-----[\s\S]+?-----END PUBLIC KEY-----/g) ?? []
  return blocks.map((block) => {
    const key = createPublicKey(block)
    if (key.asymmetricKeyType !== 'ed25519') throw new TypeError('not an Ed25519 key')
    return key
  })
}
