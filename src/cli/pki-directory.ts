import type { Identity } from '#base/common-name.ts'
import { randomBytes } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '#base/clock.ts'
import { ensureDirectory, hasCode, readTextIfPresent, writeFileWhole } from '#base/system/files.ts'
import {
  type Credential,
  createAuthority,
  issueCertificate,
  PART_DAYS,
  renewalDue,
} from '#base/system/pki.ts'

/* An authority and certificates as files: NAME.pem and NAME.key, keys mode 0600, in a directory of mode 0700. */

export interface CredentialFiles {
  readonly cert: string
  readonly key: string
}

export const credentialFiles = (directory: string, name: string): CredentialFiles => ({
  cert: join(directory, `${name}.pem`),
  key: join(directory, `${name}.key`),
})

/** The authority in `directory`, made now if there is none yet. */
export async function ensureAuthority(directory: string, clock: Clock): Promise<Credential> {
  await ensureDirectory(directory, 0o700)
  const existing = await readCredential(directory, 'ca')
  if (existing !== undefined) return existing
  const authority = await createAuthority('Holdfast authority', clock.wallMs())
  await writeCredential(directory, 'ca', authority)
  return authority
}

/** Issues NAME's certificate unless one is there that covers `hosts` and is not due for renewal. True when it was issued. */
export async function ensureCertificate(
  directory: string,
  name: string,
  authority: Credential,
  identity: Identity,
  hosts: readonly string[],
  clock: Clock,
): Promise<boolean> {
  const existing = await readCredential(directory, name)
  if (existing !== undefined && !renewalDue(existing.cert, hosts, clock.wallMs())) return false
  const spec = { identity, hosts, lifetimeDays: PART_DAYS }
  await ensureDirectory(directory, 0o700)
  await writeCredential(directory, name, await issueCertificate(authority, spec, clock.wallMs()))
  return true
}

/** The secret by which agents know each other on a link without TLS. */
export const linkKeyFile = (directory: string): string => join(directory, 'link.key')

/** Makes the link's secret, 32 random bytes, unless it is there. */
export const ensureLinkKey = (directory: string): Promise<void> =>
  ensureSecret(linkKeyFile(directory))

/** What opens the vault of a region. */
export const vaultKeyFile = (directory: string, region: string): string =>
  join(directory, `vault-${region}.key`)

/** Makes a secret of 32 random bytes unless it is there. */
export async function ensureSecret(path: string): Promise<void> {
  try {
    await stat(path)
  } catch (error) {
    if (!hasCode(error, 'ENOENT')) throw error
    await writeFileWhole(path, randomBytes(32), 0o600)
  }
}

async function readCredential(directory: string, name: string): Promise<Credential | undefined> {
  const files = credentialFiles(directory, name)
  const cert = await readTextIfPresent(files.cert)
  return cert === undefined ? undefined : { cert, key: await readFile(files.key, 'utf8') }
}

/** The key first: a certificate on disk always has its key beside it. */
async function writeCredential(
  directory: string,
  name: string,
  credential: Credential,
): Promise<void> {
  const files = credentialFiles(directory, name)
  await writeFileWhole(files.key, credential.key, 0o600)
  await writeFileWhole(files.cert, credential.cert)
}
