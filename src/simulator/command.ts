// SPDX-License-Identifier: Apache-2.0

/** `mooring simulator`: the simulator in the foreground. */
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { stringify } from 'yaml'
import { type Simulator, type SimulatorOptions, startSimulator } from './simulator.ts'

export type SimulatorCommand = SimulatorOptions & {
  /** Where to write the clouds.yaml; a private directory that goes with the simulator by default. */
  readonly cloudsYaml?: string
  /** Where to write the ids of the demo objects; beside the clouds.yaml by default. */
  readonly demoJson?: string
}

/** The `clouds.yaml` for the simulator: `mooring` is the member's cloud, `mooring-admin` the administrator's. */
export function cloudsYaml(simulator: Simulator): string {
  const cloud = (account: Simulator['accounts']['demo']) => ({
    auth: {
      auth_url: simulator.authUrl,
      username: account.username,
      password: account.password,
      project_name: account.project,
      user_domain_name: 'Default',
      project_domain_name: 'Default',
    },
    region_name: 'RegionOne',
    identity_api_version: 3,
  })
  return stringify({
    clouds: { mooring: cloud(simulator.accounts.demo), 'mooring-admin': cloud(simulator.accounts.admin) },
  })
}

/** A file that only its owner reads: also where there was one with other rights, which somebody may have open. */
function writePrivate(path: string, text: string): void {
  const draft = `${path}.next`
  rmSync(draft, { force: true })
  writeFileSync(draft, text, { mode: 0o600, flag: 'wx' })
  renameSync(draft, path)
}

/**
 * Runs until the signal is aborted. `print` gets the lines for the user: what to export, and no password.
 * @throws what `startSimulator` throws, and the system's error when a file cannot be written.
 */
export async function runSimulator(
  command: SimulatorCommand,
  print: (line: string) => void,
  signal: AbortSignal,
): Promise<void> {
  await using stack = new AsyncDisposableStack()
  const directory = mkdtempSync(join(tmpdir(), 'mooring-simulator-'))
  stack.defer(() => rmSync(directory, { recursive: true, force: true }))
  const simulator = stack.use(await startSimulator(command))
  const clouds = command.cloudsYaml ?? join(directory, 'clouds.yaml')
  const demo = command.demoJson ?? join(directory, 'demo.json')
  writePrivate(clouds, cloudsYaml(simulator))
  writeFileSync(demo, `${JSON.stringify(simulator.demo(), undefined, 1)}\n`)
  print(`# simulated OpenStack on ${simulator.url}; Ctrl-C ends it`)
  print(`export OS_CLIENT_CONFIG_FILE=${clouds} OS_CLOUD=mooring OSLAB_DEMO_JSON=${demo}`)
  print(`# also there: OS_CLOUD=mooring-admin; controls at ${simulator.url}/simulator/`)
  if (!signal.aborted) await new Promise(resolve => signal.addEventListener('abort', resolve, { once: true }))
}
