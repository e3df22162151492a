// SPDX-License-Identifier: Apache-2.0

import { write, writeSync } from 'node:fs'
import pino, { type Logger } from 'pino'

const STDERR = 2
/** So long a line waits for others, and what found no room for its next try. */
const LOG_MS = 100
const LOG_BYTES = 4096
/** What waits at most, while nobody takes it. */
const WAITING_LENGTH_MAX = 1 << 20

/**
 * A logger of the agent: JSON lines on stderr, several with one write, and none that a call waits for. Warnings go at once, and
 * what waits when the process ends is written then. What cannot be written, to a full disk or a reader that has gone, is lost: that is
 * no reason to serve no pods.
 */
export function createLogger(level: string): Logger {
  const lines = new Lines()
  process.once('exit', () => lines.writeAll())
  return pino(
    {
      level,
      base: null,
      hooks: {
        logMethod(args, method, number) {
          method.apply(this, args)
          if (number >= pino.levels.values['warn']!) lines.writeNow()
        },
      },
    },
    lines,
  )
}

/** What pino writes to. Its own stream tries for ever, on the thread of the caller, where a disk is full. */
class Lines {
  #waiting = ''
  /** What a thread of Node's writes, or what is tried again. */
  #current: Buffer | undefined
  #timer: NodeJS.Timeout | undefined

  write(line: string): void {
    if (this.#waiting.length < WAITING_LENGTH_MAX) this.#waiting += line
    if (this.#waiting.length >= LOG_BYTES) this.flush()
    else this.#timer ??= setTimeout(() => this.flush(), LOG_MS).unref()
  }

  flush(): void {
    const text = this.#take()
    if (text !== undefined) this.#send(text)
  }

  /** On this thread, unless another one writes: that takes what waits when it is done. */
  writeNow(): void {
    const text = this.#take()
    if (text !== undefined) this.#writeSync(text)
  }

  /** When the process ends: rather twice what was being written than never. */
  writeAll(): void {
    const current = this.#current
    this.#current = undefined
    if (current !== undefined) this.#writeSync(current)
    this.writeNow()
  }

  #take(): Buffer | undefined {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#current !== undefined || this.#waiting === '') return undefined
    const text = Buffer.from(this.#waiting)
    this.#waiting = ''
    return text
  }

  #send(text: Buffer): void {
    this.#current = text
    write(STDERR, text, (error, written) => {
      if (error?.code === 'EAGAIN') return this.#sendLater(text)
      if (error === null && written < text.length) return this.#send(text.subarray(written))
      this.#current = undefined
      this.flush()
    })
  }

  #writeSync(text: Buffer): void {
    let rest = text
    try {
      while (rest.length > 0) rest = rest.subarray(writeSync(STDERR, rest))
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') this.#sendLater(rest)
    }
  }

  /** The reader is slow. */
  #sendLater(text: Buffer): void {
    this.#current = text
    setTimeout(() => this.#send(text), LOG_MS).unref()
  }
}
