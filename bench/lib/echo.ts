import { echo } from './reference.ts'

echo((port) => process.send?.(port))
