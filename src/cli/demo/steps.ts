import { Listr } from 'listr2'
import type { Output, Streams } from '../output.ts'
import type { Step } from './story.ts'

/** Runs steps one after the other, shown as a live list on a terminal, as plain lines in a pipe, or as JSON lines. */
export async function runSteps(
  steps: readonly Step[],
  streams: Streams,
  output: Output,
): Promise<void> {
  const terminal = process.stdout.isTTY && !output.json && process.env['TERM'] !== 'dumb'
  if (terminal) await runListed(steps)
  else await runPlain(steps, streams, output)
}

async function runListed(steps: readonly Step[]): Promise<void> {
  const list = new Listr(
    steps.map(({ title, run }) => ({
      title,
      task: async (_: unknown, task: { output: string }) =>
        await run((text) => {
          task.output = text
        }),
      rendererOptions: { persistentOutput: true, outputBar: 1 },
    })),
    { registerSignalListeners: false },
  )
  await list.run()
}

async function runPlain(steps: readonly Step[], streams: Streams, output: Output): Promise<void> {
  for (const [index, { title, run }] of steps.entries()) {
    const number = index + 1
    let last = ''
    if (output.json) output.result({ event: 'step', step: number, of: steps.length, title }, '')
    else streams.out.write(`[${number}/${steps.length}] ${title}\n`)
    const begunMs = performance.now()
    await run((text) => (last = text))
    const ms = Math.round(performance.now() - begunMs)
    if (output.json) output.result({ event: 'step_done', step: number, ms, detail: last }, '')
    else if (last !== '') streams.out.write(`      ${last}\n`)
  }
}
