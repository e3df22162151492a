// SPDX-License-Identifier: Apache-2.0

import { runSimulator, type SimulatorCommand } from '#simulator'

type Options = {
  port: string
  dataplane?: string | true
  cloudsYaml?: string
  demoJson?: string
  latency: 'quick' | 'recorded'
  wireDelay: string
}

const DEFAULT_PREFIX = 'mooring-sim'

const wholeNumber = (option: string, text: string, max: number): number => {
  if (/^\d{1,7}$/.test(text) && Number(text) <= max) return Number(text)
  throw new RangeError(`Cannot use ${option} "${text}": want a whole number from 0 to ${max}`)
}

/** Runs the simulated OpenStack until SIGINT or SIGTERM. */
export async function simulate(options: Options, print: (line: string) => void): Promise<void> {
  const ending = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => ending.abort())
  const { dataplane, cloudsYaml, demoJson } = options
  const command: SimulatorCommand = {
    port: wholeNumber('--port', options.port, 65_535),
    wireDelayMs: wholeNumber('--wire-delay', options.wireDelay, 9_999_999),
    latency: options.latency,
    ...(dataplane !== undefined && { dataplane: dataplane === true ? DEFAULT_PREFIX : dataplane }),
    ...(cloudsYaml !== undefined && { cloudsYaml }),
    ...(demoJson !== undefined && { demoJson }),
  }
  await runSimulator(command, print, ending.signal)
}
