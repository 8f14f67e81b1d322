import { readFileSync } from 'node:fs'
import { Agent, request } from 'undici'
import { Fault, fault } from '#base/fault.ts'
import type { Report, ReportAnswer, WitnessAnswer, WitnessAsk } from '#wire/site/witness.ts'
import type { PkiFiles } from './config.ts'

/** The agent's way to its control plane. Every call ends within `timeoutMs` with an answer or WITNESS_UNREACHABLE. */
export interface ControlClient {
  /** A refusal is an answer; only silence, an unknown session or a broken answer is a Fault. */
  askWitness(session: string, ask: WitnessAsk): Promise<WitnessAnswer>
  report(report: Report): Promise<ReportAnswer>
  close(): Promise<void>
}

export const WITNESS_UNREACHABLE = fault({
  code: 'WITNESS_UNREACHABLE',
  retry: 'later',
  text: 'The control plane gave no answer.',
  hint: 'Check that it runs and that its internal port can be reached from this site.',
})

export function controlClient(options: {
  readonly controlUrl: string
  readonly pki: PkiFiles
  readonly timeoutMs: number
}): ControlClient {
  const { controlUrl, pki, timeoutMs } = options
  const dispatcher = new Agent({
    connect: {
      ca: readFileSync(pki.ca),
      cert: readFileSync(pki.cert),
      key: readFileSync(pki.key),
      minVersion: 'TLSv1.3',
      timeout: timeoutMs,
    },
    connections: 8,
    pipelining: 1,
  })

  async function call<Answer>(path: string, body: unknown): Promise<Answer> {
    try {
      const { statusCode, body: reply } = await request(`${controlUrl}${path}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body),
        dispatcher,
        signal: AbortSignal.timeout(timeoutMs),
      })
      const text = await reply.text()
      if (statusCode !== 200) throw new Error(`status ${statusCode}: ${text.slice(0, 500)}`)
      return JSON.parse(text) as Answer
    } catch (error) {
      throw new Fault(WITNESS_UNREACHABLE, `calling ${controlUrl}${path}`, {}, error)
    }
  }

  return {
    askWitness: (session, ask) => call<WitnessAnswer>(`/internal/v1/witness/${session}`, ask),
    report: (report) => call<ReportAnswer>('/internal/v1/report', report),
    close: () => dispatcher.destroy(),
  }
}
