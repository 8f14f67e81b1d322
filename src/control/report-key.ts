import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
} from 'node:crypto'
import { closeSync, fsyncSync, linkSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'
import { Fault, fault } from '#base/fault.ts'
import { hasCode } from '#base/system/files.ts'
import { keyId } from '#wire/reports/sealed.ts'
import type { ReportSigner } from '#control/operations/services.ts'

/* The key that signs reports: an Ed25519 private key as PKCS #8 PEM in one file, readable by the control plane's user only. It is made when it is
 * needed first, whole and synced before its first signature leaves; of two processes that make it at once one wins, and both use that one.
 * It is not in the state database, so a backup of that does not carry it: whoever gets one cannot forge reports. */

export const REPORT_KEY_UNUSABLE = fault({
  code: 'REPORT_KEY_UNUSABLE',
  retry: 'never',
  text: 'The key that signs reports cannot be used.',
  hint: 'Put the file back as it was. If it is lost, move it away: a new key is made, and whoever verifies reports needs both public keys.',
})

export function openReportKey(path: string): ReportSigner {
  let loaded: { readonly own: KeyObject; readonly open: KeyObject } | undefined
  const keys = () => {
    loaded ??= load(path)
    return loaded
  }
  return {
    key: () => keyId(keys().open),
    sign: (bytes) => sign(null, bytes, keys().own),
    publicKey: () => String(keys().open.export({ type: 'spki', format: 'pem' })),
  }
}

function load(path: string): { readonly own: KeyObject; readonly open: KeyObject } {
  let pem: string
  try {
    pem = readFileSync(path, 'utf8')
  } catch (error) {
    if (!hasCode(error, 'ENOENT')) throw unusable(path, error)
    make(path)
    pem = readFileSync(path, 'utf8')
  }
  try {
    const own = createPrivateKey(pem)
    if (own.asymmetricKeyType !== 'ed25519') throw new TypeError('it is none of Ed25519')
    return { own, open: createPublicKey(own) }
  } catch (error) {
    throw unusable(path, error)
  }
}

const unusable = (path: string, error: unknown): Fault =>
  new Fault(REPORT_KEY_UNUSABLE, `reading ${path}: ${String(error)}`, { path }, error)

/** Appears under its name whole, or not at all. */
function make(path: string): void {
  const { privateKey } = generateKeyPairSync('ed25519')
  const fresh = `${path}.${process.pid}.new`
  const file = openSync(fresh, 'w', 0o600)
  try {
    writeSync(file, String(privateKey.export({ type: 'pkcs8', format: 'pem' })))
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
  try {
    linkSync(fresh, path)
  } catch (error) {
    if (!hasCode(error, 'EEXIST')) throw error // another process was faster: its key counts
  } finally {
    rmSync(fresh)
  }
  const directory = openSync(dirname(path), 'r')
  try {
    fsyncSync(directory)
  } finally {
    closeSync(directory)
  }
}
