import {
  chainProblems,
  openReport,
  readPublicKeys,
  type SealedReport,
} from '#wire/reports/sealed.ts'

/* The check of a drill's report with nothing but a public key. A file of its own, which is loaded by whoever checks one: with the schemas of the reports come
 * hundreds of files, and every other command would wait for them. */

export interface CheckedReport {
  readonly file: string
  /** null: it is what one of the keys signed. */
  readonly problem: string | null
  /** Only of one without a problem. */
  readonly sealed: SealedReport | null
}

/** Whether the files are reports that one of the keys (PEM) signed, unchanged, and each follows the one before it. */
export function checkReports(
  files: readonly { readonly file: string; readonly bytes: Uint8Array }[],
  pem: string,
): { readonly reports: readonly CheckedReport[]; readonly chain: readonly string[] } {
  const keys = readPublicKeys(pem)
  const reports = files.map(({ file, bytes }): CheckedReport => {
    const opened = openReport(Buffer.from(bytes), keys)
    return opened.ok
      ? { file, problem: null, sealed: opened.sealed }
      : { file, problem: opened.problem, sealed: null }
  })
  return { reports, chain: chainProblems(reports.flatMap(({ sealed }) => sealed ?? [])) }
}

/** How many keys a PEM text holds; 0 when it holds none that can be used. */
export function keysIn(pem: string): number {
  try {
    return readPublicKeys(pem).length
  } catch {
    return 0 // not a public key, or none of Ed25519
  }
}
