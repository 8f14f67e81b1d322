import type { ApiLab } from '../../test/support/api.ts'
import { disturbedOf, type Lines, round, undisturbed, weighed } from './lines.ts'

/* One page of a list, asked for again and again by one caller with a token, in this process: from the request to the last byte of the answer. */

export interface PageQuestion {
  readonly name: string
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  /** How many rows it must hold; null: it holds none. */
  readonly rows: number | null
  readonly warmUp: number
  readonly requests: number
  /** Which share of the requests the figure covers: 0.99 for the 99th percentile. */
  readonly share: number
  readonly boundMs: number | null
}

/** Throws when the page is not what was asked for: its time would mean nothing. */
export async function measurePage(
  lab: ApiLab,
  lines: Lines,
  question: PageQuestion,
): Promise<void> {
  const { name, url, headers, rows, requests } = question
  const ask = async () => {
    const startMs = performance.now()
    const reply = await lab.app.inject({ method: 'GET', url, headers })
    const ms = performance.now() - startMs
    if (reply.statusCode !== 200) throw new Error(reply.body)
    return { ms, body: reply.body }
  }
  const { body } = await ask()
  const lists = Object.values(JSON.parse(body) as Record<string, unknown>)
  const found: unknown[] = lists.find((value) => Array.isArray(value)) ?? []
  if (rows !== null && found.length !== rows) throw new Error(`${name}: ${found.length} rows`)
  const sample = await undisturbed(() =>
    weighed([], async () => {
      for (let i = 0; i < question.warmUp; i++) await ask()
      const times: number[] = []
      for (let i = 0; i < requests; i++) times.push((await ask()).ms)
      return times.toSorted((a, b) => a - b)
    }),
  )
  const at = (share: number) => sample.value[Math.ceil(requests * share) - 1] ?? Number.NaN
  lines.show(
    {
      case: name,
      figure: round(at(question.share), 1),
      unit: 'ms',
      bound: question.boundMs,
      samples: 1,
      disturbed: disturbedOf([sample]),
      also: { median: round(at(0.5), 1), kib: Math.round(body.length / 1024) },
    },
    'most',
  )
}
