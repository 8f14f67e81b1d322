/**
 * Tables of published error codes: each is produced in its situation, or cannot occur, and the page that says so says the same.
 */
import assert from 'node:assert/strict'

export interface Answered {
  readonly status: number
  // oxlint-disable-next-line typescript/no-explicit-any -- error bodies differ between dialects
  readonly body: any
}

/** A code, the situation as the page tells it, and a request that brings it about. */
export interface Produced {
  readonly code: string
  readonly status: number
  readonly when: string
  readonly send: () => Promise<Answered>
}

/** A code that is never answered, and why. */
export interface Never {
  readonly code: string
  readonly why: string
}

/** The lines of both tables as they stand on the page, codes in order. */
export function tableLines(produced: readonly Produced[], never: readonly Never[]): string[] {
  const byCode = <T extends { readonly code: string }>(rows: readonly T[]) =>
    rows.toSorted((a, b) => (a.code < b.code ? -1 : 1))
  return [
    ...byCode(produced).map(({ code, status, when }) => `| \`${code}\` | ${status} | ${when} |`),
    ...byCode(never).map(({ code, why }) => `| \`${code}\` | ${why} |`),
  ]
}

/** Every published code is in exactly one of the tables, and nothing else is. */
export function assertComplete(
  published: readonly string[],
  produced: readonly Produced[],
  never: readonly Never[],
): void {
  const told = [...produced, ...never].map(({ code }) => code)
  const twice = told.filter((code, index) => told.indexOf(code) !== index)
  assert.deepEqual(twice, [], 'codes in both tables, or twice in one')
  assert.deepEqual(told.toSorted(), published.toSorted())
}

/** The page holds every line of the tables, and no line about another code of `prefixes`. */
export function assertOnPage(page: string, lines: readonly string[], prefixes: RegExp): void {
  const there = new Set(page.split('\n'))
  const absent = lines.filter((line) => !there.has(line))
  assert.deepEqual(absent, [], `lines that the page lacks:\n${absent.join('\n')}`)
  const wanted = new Set(lines)
  const stray = [...there].filter((line) => prefixes.test(line) && !wanted.has(line))
  assert.deepEqual(stray, [], 'lines about codes that the test does not know')
}
