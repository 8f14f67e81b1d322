import 'reflect-metadata' // first: the certificate library needs it while loading
import { randomBytes, webcrypto } from 'node:crypto'
import { isIP } from 'node:net'
import * as x509 from '@peculiar/x509'
import { commonName, type Identity } from '../common-name.ts'

/* Certificates of the parts. One authority per installation, P-256 throughout. A certificate says who holds it in its
 * common name (../common-name.ts), and nothing else in it carries meaning.
 *
 * Servers additionally carry the names and addresses under which others dial them (subject alternative names).
 */

/** A certificate and its private key (PKCS #8), both PEM. */
export interface Credential {
  readonly cert: string
  readonly key: string
}

export interface LeafSpec {
  readonly identity: Identity
  /** Host names and addresses for a server; none for a pure client. */
  readonly hosts: readonly string[]
  readonly lifetimeDays: number
}

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const
const DAY_MS = 86_400_000
/** Certificates begin a little in the past, for machines whose clocks run behind the issuer's. */
const BACKDATE_MS = 3_600_000

export const AUTHORITY_DAYS = 20 * 365
/** Two years; `renewalDue` says so when a third is left, and `holdfast up` and `holdfast init --renew` renew then. */
export const PART_DAYS = 730
export const NBD_CLIENT_DAYS = 30

/** Makes a new authority. `nowMs`: wall clock. */
export async function createAuthority(name: string, nowMs: number): Promise<Credential> {
  const keys = await newKeys()
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: newSerial(),
    name: [{ CN: [name] }],
    notBefore: new Date(nowMs - BACKDATE_MS),
    notAfter: new Date(nowMs + AUTHORITY_DAYS * DAY_MS),
    keys,
    signingAlgorithm: ALGORITHM,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(
        x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign,
        true,
      ),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  })
  return { cert: pem(certificate), key: await exportKey(keys.privateKey) }
}

/** Issues a certificate with a fresh key. It never outlives the authority. */
export async function issueCertificate(
  authority: Credential,
  spec: LeafSpec,
  nowMs: number,
): Promise<Credential> {
  const issuer = new x509.X509Certificate(authority.cert)
  const keys = await newKeys()
  const usages: string[] = [x509.ExtendedKeyUsage.clientAuth]
  if (spec.hosts.length > 0) usages.push(x509.ExtendedKeyUsage.serverAuth)
  const notAfterMs = Math.min(nowMs + spec.lifetimeDays * DAY_MS, issuer.notAfter.getTime())
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: newSerial(),
    subject: [{ CN: [commonName(spec.identity)] }],
    issuer: issuer.subject,
    notBefore: new Date(nowMs - BACKDATE_MS),
    notAfter: new Date(notAfterMs),
    publicKey: keys.publicKey,
    signingKey: await importKey(authority.key),
    signingAlgorithm: ALGORITHM,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension(usages),
      ...(spec.hosts.length > 0
        ? [
            new x509.SubjectAlternativeNameExtension(
              spec.hosts.map((host) => ({
                type: isIP(host) === 0 ? 'dns' : 'ip',
                value: host,
              })),
            ),
          ]
        : []),
      await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  })
  return { cert: pem(certificate), key: await exportKey(keys.privateKey) }
}

/** True when less than a third of the certificate's life is left, or it does not cover one of `hosts`. */
export function renewalDue(certPem: string, hosts: readonly string[], nowMs: number): boolean {
  const certificate = new x509.X509Certificate(certPem)
  const beginMs = certificate.notBefore.getTime()
  const endMs = certificate.notAfter.getTime()
  if (nowMs > endMs - (endMs - beginMs) / 3) return true
  const names = certificate.getExtension(x509.SubjectAlternativeNameExtension)?.names.items ?? []
  return hosts.some((host) => !names.some((name) => name.value === host))
}

async function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return await webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify'])
}

async function importKey(keyPem: string): Promise<webcrypto.CryptoKey> {
  const der = x509.PemConverter.decodeFirst(keyPem)
  return await webcrypto.subtle.importKey('pkcs8', der, ALGORITHM, false, ['sign'])
}

const exportKey = async (key: webcrypto.CryptoKey): Promise<string> =>
  `${x509.PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', key), 'PRIVATE KEY')}\n`

const pem = (certificate: x509.X509Certificate): string => `${certificate.toString('pem')}\n`

/** 127 random bits, the first one set below the sign, so that it is positive and never shortened. */
function newSerial(): string {
  const bytes = randomBytes(16)
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40
  return bytes.toString('hex')
}
