/**
 * Waits for the death of the runner, and then puts its lab away:
 *
 *     node janitor.ts LAB DIRECTORY KEEP
 *
 * Started in a session of its own, so that Ctrl-C and a crash of the runner leave it alive. Its standard input is a pipe that
 * ends when the runner does, however that happens. The word `done` on it says that there is nothing left to do.
 */
import { cleanUp } from './clean-up.ts'

const [lab = '', directory = '', keep = 'no'] = process.argv.slice(2)
let said = ''
process.stdin.setEncoding('utf8')
for await (const text of process.stdin) said += String(text)
if (!said.includes('done')) await cleanUp(lab, directory, keep === 'keep')
