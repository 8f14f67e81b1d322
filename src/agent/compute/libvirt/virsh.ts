import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import type { Clock } from '#base/clock.ts'

/* libvirt by its own command, virsh: its protocol is not a public interface, its library wants a compiler, and a call costs some ten
 * milliseconds. */

const OUTPUT_BYTES_MAX = 16 * 1024 * 1024
const REASON_CHARS_MAX = 600
/** The first call of all makes libvirtd look at its QEMU, which takes ten seconds. */
const CALL_LIMIT_MS = 120_000
const LISTEN_AGAIN_MS = 2_000

export type VirshAnswer =
  | { readonly kind: 'done'; readonly output: string }
  | { readonly kind: 'failed'; readonly reason: string }

export interface Virsh {
  /** Never rejects. */
  call(...args: readonly string[]): Promise<VirshAnswer>
  /** Calls back with the name of each domain that something happened to. Once. */
  listen(changed: (domain: string) => void): void
  close(): void
}

export function openVirsh(program: string, uri: string, clock: Clock): Virsh {
  let closed = false
  let listener: ChildProcess | undefined
  const env = { ...process.env, LC_ALL: 'C' }

  function listen(changed: (domain: string) => void): void {
    if (closed) return
    const args = ['-q', '-c', uri, 'event', '--event', 'lifecycle', '--loop']
    const child = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'ignore'] })
    listener = child
    createInterface({ input: child.stdout }).on('line', (line) => {
      const domain = /^event 'lifecycle' for domain '([^']+)'/.exec(line)?.[1]
      if (domain !== undefined) changed(domain)
    })
    // libvirtd was restarted, or is not there: guests are polled besides.
    const again = () => clock.after(LISTEN_AGAIN_MS, () => listen(changed))
    child.once('error', again)
    child.once('exit', again)
  }

  return {
    call: (...args) =>
      new Promise((resolve) => {
        const child = spawn(program, ['-q', '-c', uri, ...args], {
          env,
          stdio: ['ignore', 'pipe', 'pipe'],
          signal: AbortSignal.timeout(CALL_LIMIT_MS),
          killSignal: 'SIGKILL',
        })
        const output: Buffer[] = []
        let bytes = 0
        let said = ''
        child.stdout.on('data', (chunk: Buffer) => {
          bytes += chunk.length
          if (bytes <= OUTPUT_BYTES_MAX) output.push(chunk)
        })
        child.stderr.on('data', (chunk: Buffer) => {
          said = (said + chunk.toString()).slice(-4 * REASON_CHARS_MAX)
        })
        child.once('error', (error) =>
          resolve({ kind: 'failed', reason: `virsh could not be run: ${error.message}` }),
        )
        child.once('close', (code) => {
          if (code === 0) return resolve({ kind: 'done', output: Buffer.concat(output).toString() })
          const reason = said.trim().replaceAll(/\s*\n\s*(error: )?/g, ' · ')
          resolve({
            kind: 'failed',
            reason: reason.replace(/^error: /, '').slice(-REASON_CHARS_MAX) || `virsh: ${code}`,
          })
        })
      }),
    listen,
    close() {
      closed = true
      listener?.kill('SIGKILL')
    },
  }
}
