{
    # npm and Electron's rebuild tool take a package with this file for a native one. The build itself is CMake's.
    "targets": [
        {
            "target_name": "reattend",
            "type": "none",
            "actions": [
                {
                    "action_name": "build_native",
                    "inputs": [],
                    # never there: the script itself knows what is up to date
                    "outputs": ["<(PRODUCT_DIR)/always"],
                    "action": ["node", "<(module_root_dir)/scripts/build-native.js"]
                }
            ]
        }
    ]
}
