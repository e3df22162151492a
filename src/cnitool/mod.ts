// SPDX-License-Identifier: Apache-2.0

// cnitool: the verbs of CNI by hand, as upstream's program of this name: one file per verb.
// A container runtime's role, without containers; it calls plugins only as processes, and knows none.

import { Command, CommanderError, InvalidArgumentError } from 'commander'
import { defaultCacheDirectory, toCniError } from '#cni'
import { add } from './add.ts'
import { describe, type Flags, type Invocation, prepare } from './call.ts'
import { check } from './check.ts'
import { del } from './del.ts'
import { gc } from './gc.ts'
import { status } from './status.ts'

export { containerIdOf } from './call.ts'

type Verb = { readonly summary: string; run(invocation: Invocation): Promise<string> }

const verbs: Readonly<Record<string, Verb>> = {
  add: { summary: 'Add network interface to a network namespace', run: add },
  check: { summary: 'Check network interface in a network namespace', run: check },
  del: { summary: 'Delete network interface from a network namespace', run: del },
  gc: { summary: 'Garbage collect network interfaces', run: gc },
  status: { summary: 'Get status of network interfaces', run: status },
}

/** Where a program writes. */
export type Output = { stdout(text: string): void; stderr(text: string): void }

const ownStreams: Output = {
  stdout: text => void process.stdout.write(text),
  stderr: text => void process.stderr.write(text),
}

/**
 * Runs cnitool with arguments (without program name) and environment.
 *
 * @param signal stops the plugin that is running; an interrupt from the terminal does not reach it by itself.
 * @returns the exit code: 0, or 1 after any error, which is on stderr then.
 */
export async function runCnitool(
  argv: readonly string[],
  env: NodeJS.ProcessEnv,
  signal: AbortSignal = new AbortController().signal,
  output: Output = ownStreams,
): Promise<number> {
  const program = withFlags(new Command('cnitool'))
    .description(
      'Executes a CNI configuration in an existing network namespace.\n\n' +
        'Environment: NETCONFPATH (default /etc/cni/net.d), CNI_PATH, CNI_IFNAME, CNI_ARGS (K=V;K=V),\n' +
        'CAP_ARGS (JSON object of capability arguments).',
    )
    .exitOverride()
    .configureOutput({ writeOut: output.stdout, writeErr: output.stderr })
  for (const [name, verb] of Object.entries(verbs)) addVerb(program, name, verb, defined(env), signal, output)
  if (argv.length === 0) {
    program.outputHelp()
    return 0
  }
  try {
    await program.parseAsync(argv, { from: 'user' })
    return 0
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode
    output.stderr(`Error: ${describe(toCniError(error))}\n`)
    return 1
  }
}

const defined = (env: NodeJS.ProcessEnv) =>
  Object.fromEntries(Object.entries(env).filter((entry): entry is [string, string] => entry[1] !== undefined))

// Every flag may stand before or after the verb.
function withFlags(command: Command): Command {
  return command
    .option('-i, --ifname <name>', "interface name (default: CNI_IFNAME, or 'eth0')")
    .option('--cache-dir <directory>', `where results are kept (default: ${defaultCacheDirectory})`)
    .option('--timeout <seconds>', 'stop the plugin after so long (default: 300)', readSeconds)
}

function addVerb(
  program: Command,
  name: string,
  verb: Verb,
  env: Readonly<Record<string, string>>,
  signal: AbortSignal,
  output: Output,
): void {
  withFlags(program.command(name))
    .description(verb.summary)
    .argument('<network-name>')
    .argument('<netns>', 'path of the namespace, for example /run/netns/test or /proc/PID/ns/net')
    .allowExcessArguments()
    .showHelpAfterError()
    .action(async (network: string, netns: string, _options, command: Command) => {
      const given = { ...program.opts(), ...command.opts() }
      const flags: Flags = {
        ifname: given['ifname'],
        cacheDirectory: given['cacheDir'] ?? defaultCacheDirectory,
        timeoutSeconds: given['timeout'] ?? 300,
      }
      output.stdout(await verb.run(await prepare(network, netns, flags, env, signal, output.stderr)))
    })
}

function readSeconds(text: string): number {
  const seconds = Number(text)
  if (!(seconds > 0)) throw new InvalidArgumentError('want a number above 0')
  return seconds
}
