import { execFile, spawn } from 'node:child_process'

/* Programs of the system, run to their end. */

export interface Ran {
  readonly code: number
  readonly out: string
  readonly complaints: string
}

/** Runs a program and never rejects because of its exit code. */
export function tryRun(program: string, args: readonly string[], input = ''): Promise<Ran> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] })
    let out = ''
    let complaints = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
    child.stderr.setEncoding('utf8').on('data', (text: string) => (complaints += text))
    child.stdin.on('error', () => child.stdin.destroy())
    child.stdin.end(input)
    child.once('error', reject)
    child.once('close', (code) => resolve({ code: code ?? 1, out, complaints }))
  })
}

/** Runs a program; rejects with what it complained about when it fails. Resolves with its output. */
export async function run(program: string, ...args: readonly string[]): Promise<string> {
  const { code, out, complaints } = await tryRun(program, args)
  if (code !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${code}: ${complaints}`)
  return out
}

/** True when the program exists and can be started. */
export function isInstalled(program: string, ...args: readonly string[]): Promise<boolean> {
  return new Promise((resolve) => {
    execFile(program, [...args], (error) =>
      resolve((error as { code?: unknown } | null)?.code !== 'ENOENT'),
    )
  })
}
